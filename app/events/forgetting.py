"""`forget` takes what is recorded of a user out of the log."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.errors import DataError
from app.events.records import FEEDBACK, IMPRESSIONS
from app.events.segment import SegmentName, segments, write_segment
from app.events.spool import SPOOL, SUFFIX, read_spool

COLUMNS = ["impression_id", "caller_id", "user_id", "at"]


def forget(folder: Path, user_id: str, report: Callable[[int], None] = lambda segments: None) -> int:
    """Take the answers given to a user, and the feedback on them, out of the finished segments; returns the answers.

    The answers go last, as feedback is found by them: run again after an error, it finds what is left. An answer whose
    feedback is in a file that is not finished yet stays until that is, and does not count.

    Args:
        user_id: as it is recorded.
        report: told of the segments looked at so far.

    Raises DataError if a segment cannot be read or written; what was taken out before stays out.
    """
    looked = itertools.count(1)
    answers = list(segments(folder, IMPRESSIONS))
    theirs, with_theirs = _Answers(), []
    for name, path in answers:
        table = _read(path, COLUMNS)
        found = table.filter(pc.equal(table["user_id"], user_id).fill_null(False))
        if len(found):
            theirs.add(found)
            with_theirs.append((name, path))
        report(next(looked))
    others = _Answers()
    for _, path in answers if theirs.times_us else ():
        table = _read(path, COLUMNS)
        is_other = pc.invert(pc.equal(table["user_id"], user_id).fill_null(False))
        others.add(table.filter(pc.and_(is_other, pc.is_in(table["caller_id"], pa.array(list(theirs.times_us))))))
    # Before the finished files: one that is finished meanwhile is in both.
    unfinished = pa.array(_unfinished_feedback(folder, theirs, others), pa.string())
    for name, path in segments(folder, FEEDBACK) if theirs.count else ():
        table = _read(path)
        sent = zip(table["request_id"].to_pylist(), _times_us(table), strict=True)
        is_theirs = pa.array([theirs.fit(request_id, at_us, others) for request_id, at_us in sent], pa.bool_())
        if pc.any(is_theirs).as_py():
            _rewrite(folder, name, table.filter(pc.invert(is_theirs)))
        report(next(looked))
    forgotten = 0
    for name, path in with_theirs:
        table = _read(path)
        goes = pc.equal(table["user_id"], user_id).fill_null(False)
        for column in ("impression_id", "caller_id"):
            goes = pc.and_(goes, pc.invert(pc.is_in(table[column], unfinished)))
        if count := pc.sum(goes).as_py():
            _rewrite(folder, name, table.filter(pc.invert(goes)))
            forgotten += count
    return forgotten


def _unfinished_feedback(folder: Path, answers: _Answers, others: _Answers) -> list[str]:
    """Return the ids by which feedback that is in no finished file yet names these answers."""
    names: set[str] = set()
    for path in (folder / SPOOL).glob(f"*.{FEEDBACK}{SUFFIX}") if answers.count else ():
        with contextlib.suppress(FileNotFoundError):  # it has become a segment: run again, it is found there
            for batch in read_spool(path, FEEDBACK):
                sent = zip(batch["request_id"].to_pylist(), _times_us(batch), strict=True)
                names |= {request_id for request_id, at_us in sent if answers.fit(request_id, at_us, others)}
    return sorted(names)


class _Answers:
    """Some answers, by the ids that feedback may name them by."""

    def __init__(self) -> None:
        self.count = 0
        self.times_us: dict[str, list[int]] = {}
        """By the callers' own ids of their requests, which several answers may share."""
        self._ids: set[str] = set()

    def add(self, table: pa.Table) -> None:
        """Add answers, rows of a segment."""
        self.count += len(table)
        self._ids.update(table["impression_id"].to_pylist())
        for caller_id, at_us in zip(table["caller_id"].to_pylist(), _times_us(table), strict=True):
            if caller_id is not None:
                self.times_us.setdefault(caller_id, []).append(at_us)

    def fit(self, request_id: str, at_us: int, others: _Answers) -> bool:
        """Tell whether feedback of this time is on one of these answers, and not on another of the same caller's id.

        As `ctr join` has it, it is on the answer that was given last before it.
        """
        times_us = self.times_us.get(request_id)
        if times_us is None or request_id in self._ids:
            return request_id in self._ids
        answered_us = [*times_us, *others.times_us.get(request_id, [])]
        return min(answered_us, key=lambda one: (max(0, one - at_us), -one)) in times_us


def _times_us(table: pa.Table | pa.RecordBatch) -> list[int]:
    times: list[int] = table["at"].cast(pa.int64()).to_pylist()
    return times


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        with path.open("rb") as file:
            return pq.read_table(file, columns=columns, use_threads=False, pre_buffer=False)
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
