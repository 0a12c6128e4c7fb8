"""`join`: goes on from where the last one ended, one span of time after the other, and writes a part for each.

    <out>/answers/<start>.parquet    every answer of the span, with its labels
          items/<start>.parquet      the slots that they refer to
          join.json                  how it was joined, up to when, and what was found

A span is joined once it and the window after it are over, so a part says the same whenever it is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl

from app.errors import ConfigError, DataError
from app.events.event_writer import finish_orphans
from app.events.joining.bucket_join import JoinCounts, JoinedBucket, join_bucket
from app.events.joining.log_reader import LogReader
from app.events.logged_schema import SCHEMAS
from app.events.segment import TEMPORARY
from app.runtime.durable_file import fsync_path, replace_file
from app.runtime.file_lock import locked

STATE = "join.json"
LOCK = ".lock"
ANSWERS_FOLDER, ITEMS_FOLDER = "answers", "items"
APPEND_LAG = timedelta(seconds=5)
"""What was answered until so long ago is in the log's files, unless the disk does not keep up."""


class JoinState(msgspec.Struct):
    """How a folder was joined, and up to when; the content of `join.json`."""

    window_s: float
    every_s: float
    label: str
    next: str | None = None
    """The start of the first span that is not joined yet; null before the first."""
    counts: JoinCounts = msgspec.field(default_factory=JoinCounts)
    """Of all spans."""


class JoinResult(msgspec.Struct):
    """What one run did."""

    joined_until: datetime | None
    spans: int
    counts: JoinCounts
    """Of this run's spans."""
    next_at: datetime | None = None
    """When the first span that is not joined yet can be; None where the log has no answers."""


def join(
    events: Path,
    out: Path,
    *,
    window: timedelta = timedelta(minutes=30),
    every: timedelta = timedelta(hours=1),
    label: str = "click",
    until: datetime | None = None,
    report: Callable[[datetime, datetime], None] = lambda at, stop: None,
) -> JoinResult:
    """Join what is over, and write it.

    Args:
        events: folder of the log.
        out: folder of the rows, which may be there already; another run goes on in it.
        window: how long after an answer feedback counts.
        every: length of a span, which is also how often new rows come to be.
        label: type of the feedback that makes an item's label 1.
        until: take the log as it was at this time; by default some seconds ago.
        report: told of each span's start and of the end of the last one.

    Raises:
        ConfigError: the folder was joined in another way, or another run is at work in it.
        DataError: there is no log, or a file of it cannot be read.
    """
    if not events.is_dir():
        raise DataError(f"{events}: no such folder; a service writes it where CTR_EVENTS names it")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / LOCK, blocking=False):
            asked = JoinState(window.total_seconds(), every.total_seconds(), label)
            return _join_locked(events, out, asked, until, report)
    except BlockingIOError as error:
        raise ConfigError(f"{out}: another `ctr join` is at work there") from error


def _join_locked(
    events: Path,
    out: Path,
    asked: JoinState,
    until: datetime | None,
    report: Callable[[datetime, datetime], None],
) -> JoinResult:
    state = read_state(out) or asked
    if (state.window_s, state.every_s, state.label) != (asked.window_s, asked.every_s, asked.label):
        raise ConfigError(
            f"{out}: was joined with --window {state.window_s:g}s --every {state.every_s:g}s --label {state.label}; "
            "join in the same way, or into another folder"
        )
    with contextlib.suppress(PermissionError):  # who may only read the log reads what is unfinished as it is
        finish_orphans(events)
    log = LogReader(events)
    for schema in (events / SCHEMAS).glob("*.json"):
        (out / SCHEMAS).mkdir(exist_ok=True)
        replace_file(out / SCHEMAS / schema.name, schema.read_bytes())
    every, window = timedelta(seconds=state.every_s), timedelta(seconds=state.window_s)
    stop = _floor((until or datetime.now(UTC) - APPEND_LAG) - window, every)
    first = log.first if state.next is None else datetime.fromisoformat(state.next)
    counts, spans = JoinCounts(), 0
    start = stop if first is None else _floor(first, every)
    while start < stop:
        report(start, stop)
        bucket = join_bucket(log, start, start + every, window, state.label)
        if len(bucket.answers):
            _write(out, start, bucket)
        counts, spans, start = counts + bucket.counts, spans + 1, start + every
        state = msgspec.structs.replace(state, next=start.isoformat(), counts=state.counts + bucket.counts)
        replace_file(out / STATE, msgspec.json.format(msgspec.json.encode(state)) + b"\n")
    joined_until = None if state.next is None else datetime.fromisoformat(state.next)
    return JoinResult(joined_until, spans, counts, None if first is None else start + every + window)


def read_state(out: Path) -> JoinState | None:
    """Return how a folder was joined; None where it was not. Raises DataError for a damaged `join.json`."""
    try:
        return msgspec.json.decode((out / STATE).read_bytes(), type=JoinState)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise DataError(
            f"{out / STATE}: cannot be read ({error}); delete the folder to join everything anew"
        ) from error


def joined_until(out: Path) -> datetime | None:
    """Return up to when a folder is joined; None where nothing is. Raises DataError for a damaged `join.json`."""
    state = read_state(out)
    return None if state is None or state.next is None else datetime.fromisoformat(state.next)


def _write(out: Path, start: datetime, bucket: JoinedBucket) -> None:
    name = f"{start:%Y-%m-%dT%H-%M-%SZ}.parquet"
    for folder, frame in ((ITEMS_FOLDER, bucket.items), (ANSWERS_FOLDER, bucket.answers)):
        path = out / folder / name
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY}{path.stem}")
        frame.write_parquet(temporary, compression="zstd", compression_level=1, row_group_size=100_000)
        fsync_path(temporary)
        temporary.replace(path)


def _floor(at: datetime, every: timedelta) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (at - epoch) // every * every


def parts(out: Path) -> list[tuple[Path, Path]]:
    """Return the files of answers and of items of all joined spans, oldest first."""
    answers = sorted((out / ANSWERS_FOLDER).glob("*.parquet"))
    return [(path, out / ITEMS_FOLDER / path.name) for path in answers]


def read_answers(path: Path) -> pl.DataFrame:
    """Return the answers of one part. Raises DataError."""
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
