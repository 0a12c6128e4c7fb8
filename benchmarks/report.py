"""`Report`: the results of a run as tables for the terminal, JSON for programs, and Markdown for the dated page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.capacity import CONCURRENCY, Capacity
from benchmarks.contenders import AFTERNOON, FLOOR, WEEK
from benchmarks.figure import Figure
from benchmarks.ratios import FloorCost

WIDTH = 150
console = Console(stderr=True)
if not console.is_terminal:
    console.width = WIDTH  # a log wraps nothing
RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "candidates",
    "service",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "/ afternoon",
    "/ week",
    "/ floor cost",
    "CPU ms",
    "busy",
    "taken",
)


@dataclass
class Report:
    """The results of one run."""

    machine: dict[str, Any]
    catalogue: dict[str, Any]
    settings: dict[str, Any]
    difference: float = 0.0
    """Largest difference of a score between any contender and `forward`."""
    capacity: Capacity = field(default_factory=Capacity)
    floors: dict[int, FloorCost] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Peer to why it was left out."""
    failed: dict[str, str] = field(default_factory=dict)
    """Measurement to why there is none."""

    def document(self) -> dict[str, Any]:
        """Return the results for `--json`."""
        return {
            "machine": self.machine,
            "catalogue": self.catalogue,
            "settings": self.settings,
            "largest_score_difference": self.difference,
            "services": [
                {"service": name, "candidates": size, "rounds": len(rounds), **asdict(self.capacity.median(name, size))}
                for (name, size), rounds in sorted(self.capacity.rounds.items())
            ],
            "floor_cost_ms": {
                str(size): asdict(cost) | {"total_ms": cost.total_ms} for size, cost in self.floors.items()
            },
            "figures": [asdict(figure) | {"met": figure.met} for figure in self.figures],
            "skipped": self.skipped,
            "failed": self.failed,
        }

    def main_rows(self) -> list[list[str]]:
        """Return the cells of the main table, by number of candidates."""
        rows = []
        for name, size in sorted(self.capacity.rounds, key=lambda key: key[1]):
            median = self.capacity.median(name, size)
            over = [self.capacity.ratio(name, peer, size) for peer in (AFTERNOON, WEEK)]
            floor = self.floors.get(size)
            cost = 1000 / median.requests_per_second / floor.total_ms if floor and name != FLOOR else None
            rows.append(
                [
                    str(size),
                    name,
                    f"{median.requests_per_second:,.0f}",
                    f"{median.p50_ms:.2f}",
                    f"{median.p99_ms:.2f}",
                    *(_times(ratio) for ratio in over),
                    _times(cost),
                    f"{median.cpu_ms:.3f}",
                    f"{median.busy:.0%}",
                    f"{median.taken:.0%}",
                ]
            )
        return rows

    def main_table(self) -> Table:
        """Return the main table for the terminal."""
        return _table(COLUMNS, self.main_rows(), "Closed loop, the service on a core of its own")

    def figure_table(self) -> Table:
        """Return the table of ratios for the terminal."""
        return figure_table(self.figures)

    def write(self, folder: Path = RESULTS) -> Path:
        """Write the dated page, in place of that of an earlier run of the day, and return its path."""
        folder.mkdir(exist_ok=True)
        path = folder / f"{datetime.now(UTC):%Y-%m-%d}.md"
        path.write_text(self.page(), encoding="utf-8")
        return path

    def page(self) -> str:
        """Return the dated page as Markdown."""
        machine = self.machine
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        catalogue = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.catalogue.items())
        settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.settings.items())
        parts = [
            f"# {datetime.now(UTC):%Y-%m-%d}, commit {machine['commit']}",
            f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}. Python {machine['python']}, {versions}.",
            f"Catalogue and model: {catalogue}. Run: {settings}.",
            METHOD.format(concurrency=CONCURRENCY),
            f"Before anything was timed, every service gave the ranking of the published program's `forward`: scores "
            f"differ by at most {self.difference:.1g}.",
            "## Services",
            markdown(COLUMNS, self.main_rows()),
            "## Ratios",
            markdown(FIGURE_COLUMNS, figure_rows(self.figures)),
        ]
        if unmeasured := {**self.skipped, **self.failed}:
            parts += ["Not measured: " + "; ".join(f"{name} ({why})" for name, why in unmeasured.items()) + "."]
        return "\n\n".join(parts) + "\n"


def figure_rows(figures: Sequence[Figure]) -> list[list[str]]:
    """Return the cells of the table of ratios."""
    words = {True: "yes", False: "NO", None: "-"}
    return [
        [
            f.what,
            "-" if f.asked is None else f"{f.bound} {f.asked:g}{_unit(f)}",
            _reached(f),
            "not measured" if f.reached is None else words[f.met],
            f.note,
        ]
        for f in figures
    ]


METHOD = """\
How it is measured: each service has the first core to itself; the store and the load generator share the second. All
services run from the start and are stopped (SIGSTOP) while another is measured; rounds go from one service to the next,
and every number is the median of the rounds. Closed loop, {concurrency} keep-alive connections, users and items drawn
uniformly. *requests/s* leaves out the time in which the core was given to other programs while the service was ready to
run (*taken*, a share of the wall time): on a quiet machine that is none, on a busy one latencies suffer all the same.
*busy* well under 100 % means that something else than the core was the limit: for the floor, the load generator. The
floor's cost is an echo of the same bytes (its processor time where the generator limits it), one GET on a blocking
socket and the products 256-128-64-1 at the best speed found there."""
FIGURE_COLUMNS = ("what", "asked", "reached", "met", "how")


def figure_table(figures: Sequence[Figure], title: str = "Ratios of this machine") -> Table:
    """Return a table of figures for the terminal."""
    return _table(FIGURE_COLUMNS, figure_rows(figures), title)


def _unit(figure: Figure) -> str:
    return figure.unit if figure.unit == "x" else f" {figure.unit}"


def _reached(figure: Figure) -> str:
    if figure.reached is None:
        return "-"
    digits = ".2g" if 0 < abs(figure.reached) < 0.1 else ".2f"
    return f"{figure.reached:{digits}}{_unit(figure)}"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def words_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    """Return a table of sentences for the terminal, with lines between the rows."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        words = column in ("service", "what", "how", "met")
        table.add_column(column, justify="left" if words else "right")
    for row in rows:
        table.add_row(*row, style="bold" if "ctr" in row[:2] else "")
    return table


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
