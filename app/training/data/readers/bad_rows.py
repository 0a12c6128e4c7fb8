"""Record rows that cannot be used by reason, the first ones with their numbers; too many of them stop the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from app.errors import DataError

MAX_NAMED_ROWS = 10
MAX_BAD_SHARE = 0.01
"""A file with a larger share of bad rows is more likely misread than dirty; `--max-bad` sets another share."""
MIN_BAD = 2
"""Fewer bad rows are never too many, so that one bad row does not stop a run on a hundred."""


@dataclass(frozen=True)
class SkippedRows:
    """Records rows that were left out. Rows are numbered from 1; headers and blank lines are none."""

    count: int = 0
    first_rows: tuple[int, ...] = ()
    reason: str = ""
    fate: str = "left out"
    places: tuple[str, ...] = ()
    """Names the file of each of the first rows, and its number in it, where there are several files."""

    def __str__(self) -> str:
        rows = ", ".join(self.places or (str(row) for row in self.first_rows))
        more = ", ..." if self.count > len(self.first_rows) else ""
        return f"{self.count:,} bad rows {self.fate} ({self.reason}; rows {rows}{more})"

    def shifted(self, rows: int) -> SkippedRows:
        """Return the same rows with the numbers they have where `rows` rows come before."""
        places = () if rows else self.places
        return replace(self, first_rows=tuple(row + rows for row in self.first_rows), places=places)

    def followed_by(self, other: SkippedRows) -> SkippedRows:
        """Return these rows together with rows that come after them."""
        return replace(
            self, count=self.count + other.count, first_rows=(*self.first_rows, *other.first_rows)[:MAX_NAMED_ROWS]
        )


def no_rows() -> int:
    """Return 0, the number of rows before a file that is read from its beginning."""
    return 0


@dataclass
class BadRows:
    """Records the bad rows that are met while a file, or a shard of it, is read."""

    source: str
    max_share: float = MAX_BAD_SHARE
    rows: int = 0
    """Counts the data rows read so far, good or bad."""
    by_reason: dict[str, SkippedRows] = field(default_factory=dict)
    advice: dict[str, str] = field(default_factory=dict)
    """Says by reason what such rows hold and what to do about them; it ends the message about too many of them."""
    seen: set[str] = field(default_factory=set)
    """Holds what is only wrong together with something else that may come later."""
    files: list[tuple[str, int]] = field(default_factory=list)
    """Lists the names of the files read so far, where there are several, each with the number of rows before it."""
    rows_before: Callable[[], int] = no_rows
    """Counts the rows before this shard. It is called for error messages only, since it may have to read them."""
    fewest: int = MIN_BAD
    """Fewer bad rows than these are never too many."""

    @classmethod
    def of_shards(cls, shards: Iterable[BadRows]) -> BadRows:
        """Return what one process would have recorded for consecutive shards, of which there is at least one."""
        whole: BadRows | None = None
        for shard in shards:
            if whole is None:
                whole = cls(shard.source, shard.max_share)
            for name, before in shard.files:  # a shard may begin within a file
                if not whole.files or whole.files[-1][0] != name:
                    whole.files.append((name, before + whole.rows))
            for reason, skipped in shard.by_reason.items():
                earlier = whole.by_reason.get(reason, SkippedRows(reason=reason))
                whole.by_reason[reason] = earlier.followed_by(skipped.shifted(whole.rows))
            whole.rows += shard.rows
            whole.advice = {**shard.advice, **whole.advice}
            whole.seen |= shard.seen
        assert whole is not None
        return whole

    def begin_file(self, name: str) -> None:
        """Take note that the rows that come next are of this file, unless the last ones were."""
        if not self.files or self.files[-1][0] != name:
            self.files.append((name, self.rows))

    def place(self, row: int) -> str:
        """Return the file and the number in it of a row, whose number goes through all files."""
        name, before = next(file for file in reversed(self.files) if file[1] < row)
        return f"{row - before} of {name}"

    def add(self, reason: str, rows: npt.NDArray[np.integer] | list[int]) -> None:
        """Record rows that are bad for one reason.

        Args:
            rows: numbers of data rows, from 1, growing from call to call.
        """
        if not len(rows):
            return
        earlier = self.by_reason.get(reason, SkippedRows(reason=reason))
        added = SkippedRows(len(rows), tuple(int(row) for row in rows[:MAX_NAMED_ROWS]))
        self.by_reason[reason] = earlier.followed_by(added)

    @property
    def count(self) -> int:
        return sum(skipped.count for skipped in self.by_reason.values())

    def check(self, fraction: float = 1.0) -> None:
        """Stop a run on a file with too many bad rows.

        Args:
            fraction: the share of the file that has been read, so that a hopeless file is not read to its end.

        Raises:
            DataError: more than `max_share` of the rows that the file is likely to have are bad.
        """
        if self.too_many(fraction):
            skipped = self.skipped.shifted(self.rows_before())
            raise DataError(
                f"{self.source}: {skipped}; more than {100 * self.max_share:g} % of {self.rows:,} rows: "
                f"{self._advice}; --max-bad lets more pass"
            )

    @property
    def _advice(self) -> str:
        """Return what to do about the most frequent reason."""
        most = max(self.by_reason, key=lambda reason: self.by_reason[reason].count, default="")
        return self.advice.get(most) or "is the format right?"

    def too_many(self, fraction: float = 1.0) -> bool:
        """Tell whether more than `max_share` of the rows that the file is likely to have are bad."""
        return self.count >= self.fewest and self.count > self.max_share * self.rows / max(fraction, 1e-9)

    @property
    def skipped(self) -> SkippedRows:
        """Return all bad rows as one record, whose reason names each reason with its count."""
        first_rows = sorted(row for skipped in self.by_reason.values() for row in skipped.first_rows)
        several = len(self.by_reason) > 1
        reasons = [f"{skipped.count:,} {reason}" if several else reason for reason, skipped in self.by_reason.items()]
        named = tuple(dict.fromkeys(first_rows))[:MAX_NAMED_ROWS]
        places = tuple(map(self.place, named)) if self.files else ()
        return SkippedRows(self.count, named, ", ".join(reasons), places=places)
