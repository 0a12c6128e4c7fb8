"""What leaves the log: old segments, and what is recorded of a user who is to be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.errors import DataError
from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS
from app.events.segment import SegmentName, segments, write_segment

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Retention:
    """How long and how much is kept."""

    days: float = 0.0
    """Days after which answers and feedback are deleted; 0 keeps them."""
    size: int = 0
    """Bytes beyond which the oldest are; 0 keeps them."""

    def apply(self, folder: Path, now: datetime) -> int:
        """Delete finished segments that are too old or too many, and return how many.

        Items go a day after the last answers that may refer to them.
        """
        if not self.days and not self.size:
            return 0
        answers = sorted([*segments(folder, IMPRESSIONS), *segments(folder, FEEDBACK)], key=lambda found: found[0].hour)
        items = list(segments(folder, ITEMS))
        sizes = {path: _size(path) for _, path in [*answers, *items]}
        excess = sum(sizes.values()) - self.size if self.size else 0
        deleted = 0
        while answers:
            name, path = answers[0]
            old = self.days > 0 and name.hour + timedelta(hours=1) < now - timedelta(days=self.days)
            if not old and excess <= 0:
                break
            deleted += _delete(path)
            excess -= sizes[path]
            del answers[0]
        needed_from = (answers[0][0].hour if answers else now) - DAY
        unneeded = [path for name, path in items if name.hour.date() < needed_from.date()]
        return deleted + sum(_delete(path) for path in unneeded)


def forget(folder: Path, user_id: str, report: Callable[[int], None] = lambda segments: None) -> int:
    """Take the answers given to a user, and the feedback on them, out of the finished segments; returns the answers.

    Args:
        user_id: as it is recorded.
        report: told of the segments looked at so far.

    Raises DataError if a segment cannot be read or written; what was taken out before stays out.
    """
    names: set[str] = set()
    looked, forgotten = 0, 0
    for name, path in segments(folder, IMPRESSIONS):
        table = _read(path)
        theirs = pc.equal(table["user_id"], user_id).fill_null(False)
        found = table.filter(theirs)
        if len(found):
            for column in ("impression_id", "caller_id"):
                names |= {one for one in found[column].to_pylist() if one is not None}
            _rewrite(folder, name, table.filter(pc.invert(theirs)))
            forgotten += len(found)
        looked += 1
        report(looked)
    for name, path in segments(folder, FEEDBACK) if names else ():
        table = _read(path)
        theirs = pc.is_in(table["request_id"], pa.array(sorted(names)))
        if pc.any(theirs).as_py():
            _rewrite(folder, name, table.filter(pc.invert(theirs)))
        looked += 1
        report(looked)
    return forgotten


def _read(path: Path) -> pa.Table:
    try:
        with path.open("rb") as file:
            return pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _rewrite(folder: Path, name: SegmentName, table: pa.Table) -> None:
    batches: Iterable[pa.RecordBatch] = table.to_batches()
    try:
        if len(table):
            write_segment(folder, name, batches)
        else:
            (folder / str(name)).unlink()
    except OSError as error:
        raise DataError(f"{folder / str(name)}: cannot be written ({error.strerror})") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another worker has deleted it
        return 0


def _delete(path: Path) -> int:
    try:
        path.unlink()
    except FileNotFoundError:
        return 0
    return 1
