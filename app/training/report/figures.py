"""Draw curves, bars and maps as matplotlib's SVG in the colours of the page, light or dark.

Colours are drawn as placeholders and replaced by the page's CSS variables afterwards; text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, QUIET, LINE, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {INK: "--ink", QUIET: "--quiet", LINE: "--line", FIRST: "--first", SECOND: "--second"}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ctr-serving",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "legend.frameon": False,
    "path.simplify": True,
}
Points = Sequence[Sequence[float]]


def learning_curves(train: Sequence[float], validation: Sequence[float], best: int) -> str:
    """Draw the log loss by epoch; `best`, counted from 1, is the epoch that was kept."""

    def plot(axes: Axes) -> None:
        epochs = range(1, len(train) + 1)
        axes.plot(epochs, train, color=SECOND, marker="o", markersize=3, label="training")
        axes.plot(epochs, validation, color=FIRST, marker="o", markersize=3, label="validation")
        axes.axvline(best, color=QUIET, linestyle=":", linewidth=1, label="kept")
        axes.set(xlabel="epoch", ylabel="log loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()

    return draw("learning", "Log loss of the training and validation part by epoch", plot)


def curve(name: str, title: str, points: Points, x: str, y: str, chance: float | None) -> str:
    """Draw a ROC or PR curve; `chance` is the level of a PR curve of random order, None the diagonal.

    Within a tie a ROC curve is a straight line (random order), while precision between two thresholds is that of the
    lower one: a PR curve is stairs, of which average precision is the area.
    """

    def plot(axes: Axes) -> None:
        stairs: Literal["default", "steps-pre"] = "default" if chance is None else "steps-pre"
        axes.plot(*zip(*points, strict=True), color=FIRST, linewidth=1.6, drawstyle=stairs)
        axes.plot([0, 1], [0, 1] if chance is None else [chance] * 2, color=QUIET, linestyle=":", linewidth=1)
        axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))

    return draw(name, title, plot, width=4.2)


def reliability(before: Sequence[dict[str, float]], after: Sequence[dict[str, float]] | None) -> str:
    """Draw the share of clicks over the mean prediction, by bin; `after` is None where nothing was scaled."""

    def plot(axes: Axes) -> None:
        limit = max(max(bin_["predicted"], bin_["observed"]) for bin_ in [*before, *(after or [])]) * 1.05
        axes.plot([0, limit], [0, limit], color=QUIET, linestyle=":", linewidth=1, label="perfect")
        drawn = [(before, SECOND, "before", "s"), (after, FIRST, "after", "o")] if after else [(before, FIRST, "", "o")]
        for bins, colour, label, marker in drawn:
            x, y = ([bin_[axis] for bin_ in bins or []] for axis in ("predicted", "observed"))
            axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.2, label=label or "as trained")
        axes.set(xlabel="mean predicted probability", ylabel="share of clicks")
        axes.legend()

    return draw("reliability", "Observed share of clicks over predicted probability, by bin", plot, width=4.2)


def histogram(name: str, title: str, edges: Sequence[float], series: Mapping[str, Sequence[float]], x: str) -> str:
    """Draw shares by bin, of one or two series."""

    def plot(axes: Axes) -> None:
        for (label, values), colour in zip(series.items(), (FIRST, SECOND), strict=False):
            axes.stairs(values, edges, color=colour, fill=True, alpha=0.35, label=label)
            axes.stairs(values, edges, color=colour, linewidth=1.2)
        axes.set(xlabel=x, ylabel="share", xlim=(edges[0], edges[-1]))
        if len(series) > 1:
            axes.legend()

    return draw(name, title, plot)


def bars(name: str, title: str, values: dict[str, float], ranges: Sequence[tuple[float, float]], x: str) -> str:
    """Draw horizontal bars, the first on top, with the range of each."""

    def plot(axes: Axes) -> None:
        positions = range(len(values))
        axes.barh(positions, list(values.values()), color=FIRST, height=0.65)
        for position, (low, high) in zip(positions, ranges, strict=True):
            axes.plot([low, high], [position, position], color=INK, linewidth=1)
        axes.set_yticks(list(positions), list(values))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=x)

    return draw(name, title, plot, height=0.9 + 0.22 * len(values), width=7.2)


def heat_map(fields: Sequence[str], strength: Sequence[Sequence[float]]) -> str:
    """Draw the strength of each pair of fields: the stronger, the more opaque."""
    strongest = max(max(row) for row in strength) or 1.0

    def plot(axes: Axes) -> None:
        for row, values in enumerate(strength):
            for column, value in enumerate(values):
                if value > 0.005 * strongest and row != column:
                    axes.add_patch(
                        mpl.patches.Rectangle((column, row), 1, 1, color=FIRST, alpha=value / strongest, lw=0)
                    )
        axes.set(xlim=(0, len(fields)), ylim=(len(fields), 0), aspect="equal")
        centres = [index + 0.5 for index in range(len(fields))]
        axes.set_xticks(centres, list(fields), rotation=90)
        axes.set_yticks(centres, list(fields))
        axes.tick_params(length=0, labelsize=7.5)
        axes.grid(visible=False)

    size = 2.2 + 0.2 * len(fields)
    return draw("crosses", "Strength of the crosses by pair of fields", plot, width=size, height=size)


def draw(name: str, title: str, plot: Callable[[Axes], None], width: float = 6.4, height: float = 3.0) -> str:
    """Return an <svg> of this many inches, whose ids begin with `name` and whose accessible name is the title."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        plot(figure.add_subplot())
        buffer = io.StringIO()
        # No file's metadata: it is a part of the page, and a date would change it every time.
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), name, title)


def _inline(svg: str, name: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # rules for all of the page
    svg = re.sub(r" ?font-family: [^;]*;", "", svg)  # the page's own
    # Positions to a tenth of a point are exact enough, and halve the page.
    svg = re.sub(r'\b(?:d|x|y|transform)="[^"]*"', lambda match: re.sub(r"(\d\.\d)\d+", r"\1", match[0]), svg)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg, count=2)  # the HTML parser knows both
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    for placeholder, variable in VARIABLES.items():
        svg = svg.replace(placeholder, f"var({variable})")
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{escape(title)}" ', svg, count=1)
