"""One line of the ratio table: what is asked for and what was reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class Figure:
    what: str
    bound: Literal["at least", "at most"]
    asked: float | None
    """None where nothing was, and the figure is told only."""
    unit: str = "x"
    reached: float | None = None
    note: str = ""
    """How it was measured, or why it was not."""

    @property
    def met(self) -> bool | None:
        """None where it was not measured, or nothing was asked."""
        if self.reached is None or self.asked is None:
            return None
        return self.reached >= self.asked if self.bound == "at least" else self.reached <= self.asked
