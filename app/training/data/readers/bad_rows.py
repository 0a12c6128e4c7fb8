"""Rows that cannot be used: counted by what is wrong, the first ones named, and too many of them stop the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from app.errors import DataError

MAX_NAMED_ROWS = 10
MAX_BAD_SHARE = 0.01
"""A file with a larger share of bad rows is more likely misread than dirty; `--max-bad` says otherwise."""
MIN_BAD = 2
"""So many are too many at the least, so that one bad row does not stop a run on a hundred."""


@dataclass(frozen=True)
class Skipped:
    """Rows that were left out; numbers count data rows from 1, the header and blank lines not included."""

    count: int = 0
    first_rows: tuple[int, ...] = ()
    reason: str = ""
    fate: str = "left out"

    def __str__(self) -> str:
        named = ", ".join(str(row) for row in self.first_rows)
        more = ", ..." if self.count > len(self.first_rows) else ""
        return f"{self.count:,} bad rows {self.fate} ({self.reason}; rows {named}{more})"

    def later(self, rows: int) -> Skipped:
        """The same where so many rows come before."""
        return replace(self, first_rows=tuple(row + rows for row in self.first_rows))

    def and_then(self, other: Skipped) -> Skipped:
        """With rows that come after these."""
        return replace(
            self, count=self.count + other.count, first_rows=(*self.first_rows, *other.first_rows)[:MAX_NAMED_ROWS]
        )


def no_rows() -> int:
    return 0


@dataclass
class BadRows:
    """Gathers bad rows while a file, or a share of it, is read."""

    source: str
    max_share: float = MAX_BAD_SHARE
    rows: int = 0
    """Data rows seen so far, good or bad."""
    found: dict[str, Skipped] = field(default_factory=dict)
    """What is wrong to the rows it is wrong with."""
    before: Callable[[], int] = no_rows
    """Rows before this share. Asked only for what is said of an error, since it may take reading them."""

    @classmethod
    def of_shares(cls, shares: Iterable[BadRows]) -> BadRows:
        """What one process would have gathered of shares that lie one after the other, at least one."""
        whole: BadRows | None = None
        for share in shares:
            if whole is None:
                whole = cls(share.source, share.max_share)
            for reason, skipped in share.found.items():
                known = whole.found.get(reason, Skipped(reason=reason))
                whole.found[reason] = known.and_then(skipped.later(whole.rows))
            whole.rows += share.rows
        assert whole is not None
        return whole

    def add(self, reason: str, rows: npt.NDArray[np.integer] | list[int]) -> None:
        """
        Args:
            rows: numbers of data rows, from 1, growing from call to call.
        """
        if not len(rows):
            return
        known = self.found.get(reason, Skipped(reason=reason))
        self.found[reason] = known.and_then(Skipped(len(rows), tuple(int(row) for row in rows[:MAX_NAMED_ROWS])))

    @property
    def count(self) -> int:
        return sum(skipped.count for skipped in self.found.values())

    def check(self, fraction: float = 1.0) -> None:
        """
        Args:
            fraction: how much of the file has been read, so that a hopeless file is not read to its end.

        Raises:
            DataError: more than `max_share` of the rows that the file is likely to have are bad.
        """
        if self.too_many(fraction):
            named = self.skipped.later(self.before())
            raise DataError(
                f"{self.source}: {named}; more than {100 * self.max_share:g} % of {self.rows:,} rows: "
                "is the format right? --max-bad lets more pass"
            )

    def too_many(self, fraction: float = 1.0) -> bool:
        """Whether there are, for all rows that the file is likely to have."""
        return self.count >= MIN_BAD and self.count > self.max_share * self.rows / max(fraction, 1e-9)

    @property
    def skipped(self) -> Skipped:
        """All of them as one."""
        first = sorted(row for skipped in self.found.values() for row in skipped.first_rows)
        reasons = [
            f"{skipped.count:,} {reason}" if len(self.found) > 1 else reason for reason, skipped in self.found.items()
        ]
        return Skipped(self.count, tuple(dict.fromkeys(first))[:MAX_NAMED_ROWS], ", ".join(reasons))
