"""`Spool` holds the records of a worker that are not in a finished segment yet, in files that survive the worker.

    <folder>/.spool/<worker>.lock              held while the worker lives
    <folder>/.spool/<worker>-<n>.<kind>.arrows  one open file a kind: an Arrow stream, appended several times a second

A stream that breaks off is read up to its last whole batch, so a worker that is killed loses what it had not appended.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from app.events.records import KINDS
from app.events.segment_columns import SCHEMAS
from app.runtime.file_lock import try_lock

SPOOL = ".spool"
SUFFIX = ".arrows"


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
        try:
            self._append(SCHEMAS[kind].serialize())
        except OSError:
            self.close()
            path.unlink(missing_ok=True)
            raise

    def append(self, batch: pa.RecordBatch) -> None:
        """Append records; after an OSError, say of a full disk, the file is as it was before."""
        self._append(batch.serialize())
        self.rows += batch.num_rows

    def close(self) -> None:
        """Close the file, whose stream has no end mark: it may have broken off anywhere anyway."""
        os.close(self._descriptor)

    def _append(self, message: pa.Buffer) -> None:
        left = memoryview(message)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
            raise
        self.size += message.size


def read_spool(path: Path, kind: str) -> Iterator[pa.RecordBatch]:
    """Read the whole batches of a spool file, whose worker may have been killed while it wrote."""
    with pa.memory_map(str(path)) as file:
        try:
            stream = pa.ipc.open_stream(file)
            while True:
                yield stream.read_next_batch()
        except (StopIteration, pa.ArrowInvalid, OSError):
            return


def hold_lock(folder: Path, worker: str) -> int:
    """Create and lock the file that says that this worker lives; returns its descriptor, to be kept open."""
    descriptor = os.open(folder / f"{worker}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try_lock(descriptor)
    return descriptor


@contextlib.contextmanager
def orphans(folder: Path) -> Iterator[list[tuple[Path, str]]]:
    """Yield the spool files of workers that no longer live, with their kinds, items before what refers to them.

    Nobody else is given them meanwhile. Afterwards the locks of these workers are deleted.
    """
    with contextlib.ExitStack() as held:
        found: list[tuple[Path, str]] = []
        locks: list[Path] = []
        for lock in sorted(folder.glob("*.lock")):
            try:
                descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            held.callback(os.close, descriptor)
            if not try_lock(descriptor) or not lock.exists():
                continue
            locks.append(lock)
            for kind in KINDS:
                files = sorted(folder.glob(f"{lock.stem}-*.{kind}{SUFFIX}"), key=_number)
                found += [(path, kind) for path in files]
        yield found
        for lock in locks:
            if not any(folder.glob(f"{lock.stem}-*{SUFFIX}")):
                lock.unlink(missing_ok=True)


def _number(path: Path) -> int:
    return int(path.name.partition("-")[2].partition(".")[0])
