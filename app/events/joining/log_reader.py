"""`LogReader` reads the records of a span of time from the segments of an event log, and from what is not finished."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import NamedTuple, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import DataError
from app.events.records import IMPRESSIONS, ITEMS, KINDS
from app.events.segment import segments
from app.events.segment_columns import FORMAT, SCHEMAS
from app.events.spool import unfinished

RECORDED_WITHIN = timedelta(minutes=5)
"""Slots are recorded so long after an answer that refers to them at most: 0.1 s, where nothing holds the worker up."""


class _Extent(NamedTuple):
    first: datetime
    last: datetime
    path: Path


class LogReader:
    """Reads one log. What is written after the reader was made is not seen."""

    def __init__(self, folder: Path) -> None:
        """Look at which records are where, without reading them.

        Raises DataError if there is no log, or a file of it cannot be read.
        """
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; a service writes it where CTR_EVENTS names it")
        # The spool first: a file that becomes a segment meanwhile is then read twice, and its records are known by ids.
        self._spooled = {kind: [_frame(table) for table in unfinished(folder, kind)] for kind in KINDS}
        self._extents = {kind: list(_extents(folder, kind)) for kind in KINDS}

    @property
    def first(self) -> datetime | None:
        """When the first answer was given; None if there is none."""
        return min((first for first, _ in self._times(IMPRESSIONS)), default=None)

    def spans(
        self, kind: str, start: datetime, stop: datetime, length: timedelta
    ) -> Iterator[tuple[datetime, datetime]]:
        """Part [start, stop) into spans, from the start on, and yield those that may have records of a kind, in order.

        A log may have rested for months: hours without records are not looked at one by one.
        """
        numbers: set[int] = set()
        for first, last in self._times(kind):
            if first < stop and last >= start:
                numbers.update(range((max(first, start) - start) // length, (min(last, stop) - start) // length + 1))
        for number in sorted(numbers):
            begin = start + number * length
            if begin < stop:
                yield begin, min(begin + length, stop)

    def _times(self, kind: str) -> Iterator[tuple[datetime, datetime]]:
        for extent in self._extents[kind]:
            yield extent.first, extent.last
        for frame in self._spooled[kind]:
            yield cast(datetime, frame["at"].min()), cast(datetime, frame["at"].max())

    def records(self, kind: str, start: datetime, stop: datetime) -> pl.LazyFrame:
        """Return the records of one kind with a time in [start, stop), for `collect`; some may be there twice."""
        paths = [extent.path for extent in self._extents[kind] if extent.last >= start and extent.first < stop]
        frames = [pl.scan_parquet(paths, hive_partitioning=False, glob=False)] if paths else []
        frames += [frame.lazy() for frame in self._spooled[kind]]
        frames = frames or [_empty(kind).lazy()]
        return pl.concat(frames).filter(pl.col("at") >= start, pl.col("at") < stop)

    def collect(self, records: pl.LazyFrame) -> pl.DataFrame:
        """Return the rows of a query on `records`. Raises DataError that names a segment which is damaged."""
        try:
            return records.collect()
        except (OSError, pl.exceptions.PolarsError):
            for extent in chain.from_iterable(self._extents.values()):
                _require_whole(extent.path)
            raise

    def items_of(self, answers: pl.DataFrame, start: datetime, stop: datetime) -> pl.DataFrame:
        """Return the slots that answers given in [start, stop) refer to, each reference once, in their order.

        Slots are recorded again each day, that is a day earlier at the earliest if an answer was given at midnight;
        and answers wait for each other, so that slots may be recorded after those who refer to them.

        Raises DataError as `collect` does.
        """
        since = start.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
        refer_to = answers.select(pl.col("items").explode().drop_nulls().unique().alias("reference"))
        recorded = self.records(ITEMS, since, stop + RECORDED_WITHIN)
        items = self.collect(recorded.join(refer_to.lazy(), on="reference", how="semi"))
        return items.unique("reference", keep="first").sort("reference")


def _extents(folder: Path, kind: str) -> Iterator[_Extent]:
    for _, path in segments(folder, kind):
        try:
            metadata = pq.read_metadata(path)
        except PermissionError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(
                f"{path}: not a whole segment ({error}); take it out of the log to go on without it"
            ) from error
        if (metadata.metadata or {}).get(b"ctr.format", b"").decode() != FORMAT:
            raise DataError(f"{path}: not a segment of format {FORMAT}; take it out of the log to go on without it")
        column = metadata.schema.to_arrow_schema().get_field_index("at")
        spans = [metadata.row_group(index).column(column).statistics for index in range(metadata.num_row_groups)]
        if spans:
            yield _Extent(min(span.min for span in spans), max(span.max for span in spans), path)


def _require_whole(path: Path) -> None:
    """Read a segment. Raises DataError, which names it, if that fails."""
    try:
        pl.read_parquet(path, hive_partitioning=False, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: is damaged ({error}); take it out of the log to go on without it") from error


def _empty(kind: str) -> pl.DataFrame:
    return _frame(SCHEMAS[kind].empty_table())


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
