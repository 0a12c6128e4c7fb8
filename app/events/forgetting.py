"""`forget` takes what is recorded of a user out of the log."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.errors import DataError
from app.events.records import FEEDBACK, IMPRESSIONS
from app.events.segment import SegmentName, segments, write_segment
from app.events.spool import unfinished

COLUMNS = ["impression_id", "caller_id", "user_id", "at"]


class Forgotten(NamedTuple):
    """What was taken out."""

    answers: int
    waiting: int
    """Answers that stay, as feedback on them is in a file that is not finished yet: it is found by them."""


def forget(folder: Path, user_id: str, report: Callable[[int], None] = lambda segments: None) -> Forgotten:
    """Take the answers given to a user, and the feedback on them, out of the finished segments.

    The answers go last: run again after an error, it finds what is left.

    Args:
        user_id: as it is recorded.
        report: told of the segments looked at so far.

    Raises DataError if a segment cannot be read or written; what was taken out before stays out.
    """
    looked = itertools.count(1)
    theirs, with_theirs = _Answers(), []
    for name, path in segments(folder, IMPRESSIONS):
        table = _read(path, COLUMNS)
        found = table.filter(_is_given_to(table, user_id))
        if len(found):
            theirs.add(found, is_theirs=True)
            with_theirs.append((name, path))
        report(next(looked))
    if not with_theirs:
        return Forgotten(0, 0)
    # Before the finished files, which are looked for anew: one that is finished meanwhile is in both.
    others = (_read(path, COLUMNS) for _, path in segments(folder, IMPRESSIONS))
    ids = theirs.ids
    for table in itertools.chain(unfinished(folder, IMPRESSIONS), others):
        shared = pc.or_(pc.is_in(table["caller_id"], ids), pc.is_in(table["impression_id"], ids))
        theirs.add(table.filter(pc.and_(shared, pc.invert(_is_given_to(table, user_id)))), is_theirs=False)
    waiting_ids = {
        request_id
        for table in unfinished(folder, FEEDBACK)
        for request_id, is_theirs in zip(table["request_id"].to_pylist(), theirs.have(table), strict=True)
        if is_theirs
    }
    for name, path in segments(folder, FEEDBACK):
        table = _read(path)
        is_theirs = theirs.have(table)
        if any(is_theirs):
            _rewrite(folder, name, table.filter(pc.invert(pa.array(is_theirs, pa.bool_()))))
        report(next(looked))
    waits_for = pa.array(sorted(waiting_ids), pa.string())
    forgotten = waiting = 0
    for name, path in with_theirs:
        table = _read(path)
        given = _is_given_to(table, user_id)
        waits = pc.or_(pc.is_in(table["impression_id"], waits_for), pc.is_in(table["caller_id"], waits_for))
        goes = pc.and_(given, pc.invert(waits))
        waiting += pc.sum(pc.and_(given, waits)).as_py() or 0
        if count := pc.sum(goes).as_py():
            _rewrite(folder, name, table.filter(pc.invert(goes)))
            forgotten += count
    return Forgotten(forgotten, waiting)


class _Answers:
    """A user's answers by the ids that feedback may name them by, beside those of others that callers named alike."""

    def __init__(self) -> None:
        self._given: dict[str, list[tuple[int, bool]]] = {}
        """When answers were given, in microseconds, and whether to the user, by an id of theirs; in order."""

    @property
    def ids(self) -> pa.Array:
        """Return the ids of the user's answers, our own and their callers'."""
        return pa.array(self._given, pa.string())

    def add(self, table: pa.Table, *, is_theirs: bool) -> None:
        """Add answers: all of the user, and then those of others that have one of `ids`."""
        names = zip(table["impression_id"].to_pylist(), table["caller_id"].to_pylist(), strict=True)
        for ids, at_us in zip(names, _times_us(table), strict=True):
            for one in ids:
                if one is not None and (is_theirs or one in self._given):
                    bisect.insort(self._given.setdefault(one, []), (at_us, is_theirs))

    def have(self, feedback: pa.Table) -> list[bool]:
        """Tell of feedback whether it is on one of the user's answers.

        As `ctr join` has it, it is on the answer that was given last before it.
        """
        return [
            self._is_theirs(request_id, at_us)
            for request_id, at_us in zip(feedback["request_id"].to_pylist(), _times_us(feedback), strict=True)
        ]

    def _is_theirs(self, request_id: str, at_us: int) -> bool:
        given = self._given.get(request_id)
        if given is None:
            return False
        return given[max(0, bisect.bisect_right(given, (at_us, True)) - 1)][1]


def _is_given_to(table: pa.Table, user_id: str) -> Any:
    return pc.equal(table["user_id"], user_id).fill_null(False)


def _times_us(table: pa.Table) -> list[int]:
    times: list[int] = table["at"].cast(pa.int64()).to_pylist()
    return times


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        with path.open("rb") as file:
            return pq.read_table(file, columns=columns, use_threads=False, pre_buffer=False)
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: cannot be read ({reason}); take it out of the log to go on without it") from error


def _rewrite(folder: Path, name: SegmentName, table: pa.Table) -> None:
    batches: Iterable[pa.RecordBatch] = table.to_batches()
    try:
        if len(table):
            write_segment(folder, name, batches)
        else:
            (folder / str(name)).unlink()
    except OSError as error:
        raise DataError(f"{folder / str(name)}: cannot be written ({error.strerror})") from error
