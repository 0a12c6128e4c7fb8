"""`Row`: one fault, what must hold while it lasts, and how it is injected; `Check`: one thing as it was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from benchmarks.faults.bed import FaultBed


@dataclass(frozen=True)
class Check:
    """One thing that must hold, and how it was seen."""

    seen: str
    ok: bool
    timed: bool = False
    """Whether a busy machine alone can miss it. A smoke run does not judge those."""


class Skipped(Exception):
    """A row cannot be run on this machine; the message says why."""


@dataclass(frozen=True)
class Row:
    """A fault and the function that injects it."""

    name: str
    """What `--only` calls it."""
    fault: str
    must_hold: str
    run: Callable[[FaultBed], Sequence[Check]]
    table: Literal["found", "promised"] = "promised"
    """Whether the fault was once seen to bring the service down, or belongs to what is promised."""
    smoke: bool = False
    """Whether a smoke run includes it."""


@dataclass(frozen=True)
class Outcome:
    """What was seen of a row."""

    row: Row
    checks: Sequence[Check] = ()
    skipped: str = ""
    """Why it was not run."""
    error: str = ""
    """Why it could not be judged."""
    seconds: float = 0.0
    judged_timed: bool = field(default=True, kw_only=True)

    @property
    def ok(self) -> bool | None:
        """Whether all holds; None if the row was skipped."""
        if self.skipped:
            return None
        return not self.error and all(check.ok for check in self.checks if self.judged_timed or not check.timed)

    @property
    def seen(self) -> str:
        """What was seen, in words; what does not hold comes first."""
        if self.skipped:
            return f"skipped: {self.skipped}"
        missed = [f"MISSED: {check.seen}" for check in self.checks if not check.ok]
        held = [check.seen for check in self.checks if check.ok]
        return "; ".join([*([f"ERROR: {self.error}"] if self.error else []), *missed, *held])
