"""Drawings of a training's report without their rendering, which takes two fifths of a small training run's time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import matplotlib as mpl
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.training.report import figures


def unrendered(name: str, title: str, plot: Callable[[Axes], None], width: float = 6.4, height: float = 3.0) -> str:
    """As `figures.draw` up to its last step."""
    with mpl.rc_context(figures.STYLE):
        plot(Figure(figsize=(width, height)).add_subplot())
    return f'<svg role="img" aria-label="{title}" id="{name}"></svg>'


@contextmanager
def drawings_unrendered() -> Iterator[None]:
    """Leave out the rendering, which tests/training/report is about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw", unrendered)
        yield
