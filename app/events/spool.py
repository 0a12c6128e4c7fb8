"""Spool files hold the records of a worker that are not in a finished segment yet, and survive the worker.

    <folder>/.spool/<worker>.lock              held while the worker lives
    <folder>/.spool/<worker>-<n>.<kind>.frames  one open file a kind, appended to several times a second

A file that breaks off is read up to its last whole frame, so a worker that is killed loses what it had not appended.
Records become columns when the file is read: hundreds at once take less time than the few of each append.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from app.errors import DataError
from app.events.record_frames import read_frames, to_frame, whole_bytes
from app.events.records import KINDS, Record, size_of
from app.events.segment_columns import to_batch
from app.runtime.file_lock import try_lock

SPOOL = ".spool"
SUFFIX = ".frames"
READ_AT_ONCE = 512
"""Records that become columns at once: in a millisecond, during which requests may take the interpreter."""


class SpoolFile:
    """One open file of one kind of records."""

    def __init__(self, path: Path, kind: str) -> None:
        """Create the file. Raises OSError."""
        self.path = path
        self.kind = kind
        self.rows = 0
        self.size = 0
        """Bytes written so far."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def append(self, records: Sequence[Record]) -> int:
        """Append records and return how many; after an OSError, say of a full disk, the file is as it was before."""
        frame = to_frame(records)
        left = memoryview(frame)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
            raise
        rows = sum(map(size_of, records))
        self.size += len(frame)
        self.rows += rows
        return rows

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_spool(path: Path, kind: str) -> Iterator[pa.RecordBatch]:
    """Yield the whole frames of a spool file as columns, of `READ_AT_ONCE` records or a few more.

    Raises OSError, and DataError if records are in another format.
    """
    held: list[Record] = []
    rows = 0
    for record in _records(path, kind):
        held.append(record)
        rows += size_of(record)
        if rows >= READ_AT_ONCE:
            yield to_batch(kind, held)
            held, rows = [], 0
            time.sleep(0)  # others may have the interpreter
    if held:
        yield to_batch(kind, held)


def first_record(path: Path, kind: str) -> Record | None:
    """Return the first record, or block of them, of a spool file; None if it has none. Raises as `read_spool` does."""
    with contextlib.closing(_records(path, kind)) as records:
        return next(records, None)


def unread_bytes(path: Path) -> int:
    """Return how many bytes at the end of a spool file cannot be read. Raises OSError."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size - whole_bytes(file)


def _records(path: Path, kind: str) -> Generator[Record, None, None]:
    with path.open("rb") as file:
        try:
            for records in read_frames(file, kind):
                yield from records
        except DataError as error:
            raise DataError(f"{path}: {error}; take it out of there to go on without it") from error


def unfinished(folder: Path, kind: str) -> Iterator[pa.Table]:
    """Yield what the spool files of a log hold, a table each; one that becomes a segment meanwhile is left out."""
    for path in sorted((folder / SPOOL).glob(f"*.{kind}{SUFFIX}")):
        with contextlib.suppress(FileNotFoundError):
            if batches := list(read_spool(path, kind)):
                yield pa.Table.from_batches(batches)


def hold_lock(folder: Path, worker: str) -> int:
    """Create and lock the file that says that this worker lives; returns its descriptor, to be kept open."""
    descriptor = os.open(folder / f"{worker}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try_lock(descriptor)
    return descriptor


@contextlib.contextmanager
def orphans(folder: Path) -> Iterator[list[list[tuple[Path, str]]]]:
    """Yield the spool files of each worker that no longer lives, with their kinds, items before what refers to them.

    Nobody else is given them meanwhile. Afterwards the locks of these workers are deleted.
    """
    with contextlib.ExitStack() as held:
        found: list[list[tuple[Path, str]]] = []
        locks: list[Path] = []
        for lock in sorted(folder.glob("*.lock")):
            try:
                descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # it is gone, or nobody here may tell whether its worker lives
                continue
            held.callback(os.close, descriptor)
            if not try_lock(descriptor) or not lock.is_file():
                continue
            locks.append(lock)
            files = [(kind, folder.glob(f"{lock.stem}-*.{kind}{SUFFIX}")) for kind in KINDS]
            found.append([(path, kind) for kind, paths in files for path in sorted(paths, key=_number)])
        yield found
        for lock in locks:
            if not any(folder.glob(f"{lock.stem}-*{SUFFIX}")):
                lock.unlink(missing_ok=True)


def _number(path: Path) -> tuple[int, str]:
    """Return by what the files of a worker are in the order in which it wrote them; others come first."""
    number = path.name.partition("-")[2].partition(".")[0]
    return (int(number) if number.isdecimal() else -1), path.name
