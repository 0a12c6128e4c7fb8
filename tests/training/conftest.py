"""The command line, run in this process, reports without the rendering, and baselines without most of their search."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import matplotlib as mpl
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.training.evaluation import linear_baseline
from app.training.report import figures
from tests.command_line import Ctr, command_line


@pytest.fixture
def run_ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctr:
    """Runs `ctr` with these arguments; returns exit status, standard output and standard error."""
    return command_line(monkeypatch, capsys)


def unrendered(name: str, title: str, plot: Callable[[Axes], None], width: float = 6.4, height: float = 3.0) -> str:
    """As `figures.draw` up to the last step, which takes two thirds of a small training run's time."""
    with mpl.rc_context(figures.STYLE):
        plot(Figure(figsize=(width, height)).add_subplot())
    return f'<svg role="img" aria-label="{title}" id="{name}"></svg>'


# Of a module, as what a module trains once is trained before anything is set up for its first test.
@pytest.fixture(autouse=True, scope="module")
def _unrendered() -> Iterator[None]:
    """Drawings are the report's own tests' matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw", unrendered)
        yield


@pytest.fixture(autouse=True, scope="module")
def _short_search() -> Iterator[None]:
    """The search for a baseline's C, a fifth of a small training run's time, is the baselines' own tests' matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_baseline, "GRID", (0.1, 1.0))
        yield
