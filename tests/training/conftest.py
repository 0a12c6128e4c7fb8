"""The command line, run in this process, reports without the rendering, and baselines without most of their search."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.training.evaluation import linear_baseline
from tests.command_line import Ctr, command_line
from tests.drawings import drawings_unrendered


@pytest.fixture
def run_ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctr:
    """Runs `ctr` with these arguments; returns exit status, standard output and standard error."""
    return command_line(monkeypatch, capsys)


# Of a module, as what a module trains once is trained before anything is set up for its first test.
@pytest.fixture(autouse=True, scope="module")
def _unrendered() -> Iterator[None]:
    """Drawings are the report's own tests' matter."""
    with drawings_unrendered():
        yield


@pytest.fixture(autouse=True, scope="module")
def _short_search() -> Iterator[None]:
    """The search for a baseline's C, a fifth of a small training run's time, is the baselines' own tests' matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_baseline, "GRID", (0.1, 1.0))
        yield
