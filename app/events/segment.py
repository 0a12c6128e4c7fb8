"""Finished segments: Parquet files that any tool reads; each has another name until it is whole."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import DataError
from app.events.segment_columns import SCHEMAS, dictionary_columns

SUFFIX = ".parquet"
TEMPORARY = ".tmp-"
ROW_GROUP_BYTES = 16 << 20
_partition = re.compile(
    r"(?P<kind>[a-z]+)/date=(?P<date>\d{4}-\d{2}-\d{2})/hour=(?P<hour>\d{2})/(?P<file>[^/]+)\.parquet"
)


class SegmentName(NamedTuple):
    """Where a segment is: `<kind>/date=<date>/hour=<hour>/<file>.parquet`, in UTC, when its first record came to be."""

    kind: str
    hour: datetime
    file: str

    def __str__(self) -> str:
        return f"{self.kind}/date={self.hour:%Y-%m-%d}/hour={self.hour:%H}/{self.file}{SUFFIX}"


def segment_name(kind: str, first_at_us: int, file: str) -> SegmentName:
    """Return the name of a segment whose first record came to be at this time, in microseconds since 1970."""
    return SegmentName(kind, datetime.fromtimestamp(first_at_us // 3_600_000_000 * 3600, UTC), file)


def parse_segment_name(path: str) -> SegmentName | None:
    """Return the name that a path below the log's folder says; None if it is not a segment's."""
    found = _partition.fullmatch(path)
    if found is None:
        return None
    try:
        hour = datetime.fromisoformat(f"{found['date']}T{found['hour']}:00:00+00:00")
    except ValueError:  # the 32nd of a month
        return None
    return SegmentName(found["kind"], hour, found["file"])


def write_segment(folder: Path, name: SegmentName, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a segment below a folder, zstd-compressed; returns the rows.

    The file is brought to the disk before it has its name. Raises OSError, and leaves nothing behind then.
    """
    path = folder / str(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{name.file}")  # no suffix: readers look for that
    rows = 0
    try:
        with pq.ParquetWriter(
            temporary,
            SCHEMAS[name.kind],
            compression="zstd",
            compression_level=1,
            use_dictionary=dictionary_columns(name.kind),
        ) as writer:
            for table in _row_groups(batches):
                writer.write_table(table)
                rows += table.num_rows
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return rows


def segments(folder: Path, kind: str) -> Iterator[tuple[SegmentName, Path]]:
    """Yield the finished segments of one kind, oldest first. Raises DataError if a folder of theirs cannot be read."""
    found = []
    for parent, _, files in os.walk(folder / kind, onerror=_require_readable):
        paths = [Path(parent, file) for file in files]
        names = [parse_segment_name(path.relative_to(folder).as_posix()) for path in paths]
        found += [(name, path) for name, path in zip(names, paths, strict=True) if name is not None]
    yield from sorted(found)


def _require_readable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(held).combine_chunks()
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held).combine_chunks()
