"""`Figure`: one line of the ratio table, with the bound that is asked for and the value that was reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class Figure:
    """A measured value beside its bound."""

    what: str
    bound: Literal["at least", "at most"]
    asked: float | None
    """The bound; None for a figure that is only reported."""
    unit: str = "x"
    reached: float | None = None
    note: str = ""
    """Says how it was measured, or why it was not."""

    @property
    def met(self) -> bool | None:
        """Whether the bound holds; None if nothing was measured or asked."""
        if self.reached is None or self.asked is None:
            return None
        return self.reached >= self.asked if self.bound == "at least" else self.reached <= self.asked
