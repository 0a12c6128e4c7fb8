"""The on-disk encoded form of a file: its slots, labels and times as flat arrays, made once and mapped ever after.

    <cache>/<digest>/  user_keys.bin int64 [N, S_u]     item_keys.bin int64 [N, S_i]     labels.bin float32 [N]
                       user_values.bin float32 [N, S_u] item_values.bin float32 [N, S_i] times.bin int64 [N], if any
                       user.parquet, item.parquet       some rows as they were read, for examples
                       meta.json                        shapes, what was left out, and what the digest stands for

The digest is of the file's identity, the schema's hash and the options, so that a folder is never out of date: another
file or schema has another folder. A folder is written aside under a lock and renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from app.features.fields import SIDES, Side
from app.features.slots import Slots
from app.training.data.encode_shards import Report, fill, kept
from app.training.data.readers.bad_rows import BadRows, Skipped
from app.training.data.source import Source
from app.training.distributed import SINGLE_PROCESS, ProcessGroup

FORMAT = 1
META = "meta.json"
END_BYTES = 1 << 16
"""Hashed at either end of the file, beside its size and time."""


class Meta(msgspec.Struct, frozen=True):
    format: int
    path: str
    size: int
    modified_ns: int
    rows: int
    slots: dict[str, int]
    timed: bool
    seen: int
    """Rows of the file, good or bad."""
    skipped: dict[str, Any]
    unreadable: dict[str, dict[str, Any]]
    seconds: float


class EncodedFolder:
    """A complete folder, read only. Arrays are mapped: opening costs nothing, and memory is the system's to take."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError, msgspec.DecodeError or ValueError where it is not complete."""
        self.folder = folder
        self.meta = msgspec.json.decode((folder / META).read_bytes(), type=Meta)
        if self.meta.format != FORMAT:
            raise ValueError("another format")
        self.labels_N = self._mapped("labels", np.float32)
        self.times_N = self._mapped("times", np.int64) if self.meta.timed else None
        self._slots = {side: self._side(side) for side in SIDES}

    def slots(self, side: Side) -> Slots:
        return self._slots[side]

    def examples(self, side: Side) -> pl.DataFrame:
        return pl.read_parquet(self.folder / f"{side}.parquet")

    @property
    def skipped(self) -> Skipped:
        return msgspec.convert(self.meta.skipped, Skipped)

    @property
    def unreadable(self) -> dict[str, Skipped]:
        return msgspec.convert(self.meta.unreadable, dict[str, Skipped])

    def _side(self, side: Side) -> Slots:
        width = self.meta.slots[side]
        return Slots(self._mapped(f"{side}_keys", np.int64, width), self._mapped(f"{side}_values", np.float32, width))

    def _mapped(self, name: str, dtype: type[np.generic], width: int | None = None) -> npt.NDArray[Any]:
        shape = (self.meta.rows,) if width is None else (self.meta.rows, width)
        if 0 in shape:
            return np.empty(shape, dtype)
        path = self.folder / f"{name}.bin"
        if path.stat().st_size != int(np.prod(shape)) * np.dtype(dtype).itemsize:
            raise ValueError(f"{path} has another size")
        return np.memmap(path, dtype, "r", shape=shape)


def encode_file(
    source: Source, cache: Path, *, max_bad: float, report: Report | None = None, group: ProcessGroup = SINGLE_PROCESS
) -> EncodedFolder:
    """The folder of a file, or of several: the one that is there, or a new one.

    Args:
        group: the processes of this machine. All call it, and each encodes its share of the rows.

    Raises:
        ConfigError: the cache has no room, or cannot be written, or the processes do not all see it.
        DataError: the file cannot be read, or too much of it is bad.
    """
    with contextlib.ExitStack() as stack:

        def look() -> tuple[dict[str, Any], Path, EncodedFolder | None]:
            identity = _identity(source.path, source.files)
            folder = cache / _digest(source, identity)
            if not group.is_first:
                return identity, folder, None
            cache.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(folder.with_suffix(".lock")))  # a second run waits, and finds it done
            encoded = _complete(folder)
            if encoded is None:
                _forget(cache, identity)
            return identity, folder, encoded

        identity, folder, encoded = group.run_all_or_raise(lambda: kept(source, cache, look))
        if not group.all_gather(encoded is not None)[0]:
            _write(source, folder, identity, max_bad, report, group)
        encoded = group.run_all_or_raise(lambda: encoded or kept(source, cache, lambda: EncodedFolder(folder)))
    bad = BadRows(str(source.path), max_bad, encoded.meta.seen, {encoded.skipped.reason: encoded.skipped})
    bad.check()
    return encoded


def _identity(path: Path, files: tuple[Path, ...]) -> dict[str, Any]:
    each = [_identity_of(file) for file in files]
    if files == (path,):
        return each[0]
    newest = max(identity["modified_ns"] for identity in each)
    size = sum(identity["size"] for identity in each)
    return {"path": str(path.resolve()), "size": size, "modified_ns": newest, "files": each}


def _identity_of(path: Path) -> dict[str, Any]:
    found = path.stat()
    with path.open("rb") as file:
        ends = hashlib.sha256(file.read(END_BYTES))
        file.seek(max(0, found.st_size - END_BYTES))
        ends.update(file.read())
    return {
        "path": str(path.resolve()),
        "size": found.st_size,
        "modified_ns": found.st_mtime_ns,
        "ends": ends.hexdigest(),
    }


def _digest(source: Source, identity: dict[str, Any]) -> str:
    others = [_identity_of(path) for path in source.also]
    options = [source.name, source.label, source.timestamp, sorted(source.labels.items()), others]
    whole = msgspec.json.encode([FORMAT, identity, source.schema.hash, options], order="sorted")
    return hashlib.sha256(whole).hexdigest()[:32]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go of it when the process ends, however it ends
        yield


def _complete(folder: Path) -> EncodedFolder | None:
    try:
        return EncodedFolder(folder)
    except (OSError, ValueError, msgspec.DecodeError, msgspec.ValidationError):
        return None


def _forget(cache: Path, identity: dict[str, Any]) -> None:
    """Remove what was made of this path when it was another file; processes that have it mapped keep it."""
    for meta_file in cache.glob(f"*/{META}"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            meta = msgspec.json.decode(meta_file.read_bytes(), type=Meta)
            same = (meta.size, meta.modified_ns) == (identity["size"], identity["modified_ns"])
            if meta.path == identity["path"] and not same:
                shutil.rmtree(meta_file.parent, ignore_errors=True)
                meta_file.parent.with_suffix(".lock").unlink(missing_ok=True)


def _write(
    source: Source, folder: Path, identity: dict[str, Any], max_bad: float, report: Report | None, group: ProcessGroup
) -> None:
    started = time.perf_counter()
    cache, aside = folder.parent, folder.with_name(f".tmp-{folder.name}")

    def begin() -> None:
        if group.is_first:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()

    def end() -> None:
        if group.is_first:
            for piece in aside.glob("*/"):
                shutil.rmtree(piece)
            (aside / META).write_bytes(msgspec.json.encode(meta))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(aside, folder)

    group.run_all_or_raise(lambda: kept(source, cache, begin))
    try:
        filled = fill(source, aside, max_bad, report, group)
        meta = Meta(
            format=FORMAT,
            path=identity["path"],
            size=identity["size"],
            modified_ns=identity["modified_ns"],
            rows=filled.rows,
            slots={str(side): width for side, width in filled.slots.items()},
            timed=source.timestamp is not None,
            seen=filled.bad.rows,
            skipped=msgspec.to_builtins(filled.bad.skipped),
            unreadable=msgspec.to_builtins(filled.unreadable),
            seconds=round(time.perf_counter() - started, 3),
        )
        group.run_all_or_raise(lambda: kept(source, cache, end))
    except BaseException:
        if group.is_first:
            shutil.rmtree(aside, ignore_errors=True)
        raise
