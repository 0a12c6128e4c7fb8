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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import ConfigError
from app.features.schema import Side
from app.features.slots import Slots
from app.training.datasets.bad_rows import BadRows, Skipped
from app.training.datasets.chunks import stacked
from app.training.datasets.encoding import TableEncoder
from app.training.datasets.source import SIDES, Source

FORMAT = 1
META = "meta.json"
END_BYTES = 1 << 16
"""Hashed at either end of the file, beside its size and time."""
EXAMPLE_ROWS, EXAMPLE_CHUNKS = 64, 32

Report = Callable[[int, float], None]
"""Told the rows encoded and the share of the file read."""


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


def encode_file(source: Source, cache: Path, *, max_bad: float, report: Report | None = None) -> EncodedFolder:
    """The folder of a file: the one that is there, or a new one.

    Raises:
        ConfigError: the cache has no room, or cannot be written.
        DataError: the file cannot be read, or too much of it is bad.
    """
    identity = _identity(source.path)
    digest = _digest(source, identity)
    folder = cache / digest
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{digest}.lock"):  # a second process waits, and finds it done
            encoded = _complete(folder)
            if encoded is None:
                _forget(cache, identity)
                encoded = _write(source, folder, identity, max_bad, report)
    except OSError as error:
        raise ConfigError(
            f"{cache}: the encoded form of {source.path} cannot be kept there: {error.strerror}; "
            "make room, or name another folder with --cache"
        ) from error
    bad = BadRows(str(source.path), max_bad, encoded.meta.seen, {encoded.skipped.reason: encoded.skipped})
    bad.check()
    return encoded


def _identity(path: Path) -> dict[str, Any]:
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
    others = [_identity(path) for path in source.also]
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
    source: Source, folder: Path, identity: dict[str, Any], max_bad: float, report: Report | None
) -> EncodedFolder:
    aside = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        meta = _fill(source, aside, identity, max_bad, report)
        (aside / META).write_bytes(msgspec.json.encode(meta))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return EncodedFolder(folder)


def _fill(source: Source, aside: Path, identity: dict[str, Any], max_bad: float, report: Report | None) -> Meta:
    started = time.perf_counter()
    bad = BadRows(str(source.path), max_bad)
    encoder = TableEncoder(source.schema, str(source.path), max_bad)
    examples = _Examples()
    rows, slots = 0, dict.fromkeys(SIDES, 0)
    with contextlib.ExitStack() as stack:
        names = ["labels", "times", *(f"{side}_{part}" for side in SIDES for part in ("keys", "values"))]
        files = {name: stack.enter_context((aside / f"{name}.bin").open("wb")) for name in names}
        for part in source.parts(bad):
            for side in SIDES:
                encoded = encoder.slots(side, part.side(side), part.rows_N)
                slots[side] = encoded.keys.shape[1]
                # Written, not mapped: a page that is written through a mapping counts as this process's memory.
                files[f"{side}_keys"].write(encoded.keys.data)
                files[f"{side}_values"].write(encoded.values.data)
            files["labels"].write(part.labels_N.data)
            if part.times_N is not None:
                files["times"].write(part.times_N.data)
            rows += len(part.labels_N)
            encoder.check(bad.rows, part.fraction)
            examples.add(part.user, part.item)
            if report:
                report(rows, part.fraction)
            del part, encoded  # or this chunk stays while the next one is read
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    encoder.check(bad.rows)
    examples.write(aside)
    return Meta(
        format=FORMAT,
        path=identity["path"],
        size=identity["size"],
        modified_ns=identity["modified_ns"],
        rows=rows,
        slots={str(side): width for side, width in slots.items()},
        timed=source.timestamp is not None,
        seen=bad.rows,
        skipped=msgspec.to_builtins(bad.skipped),
        unreadable=msgspec.to_builtins(encoder.unreadable),
        seconds=round(time.perf_counter() - started, 3),
    )


class _Examples:
    """Some rows of some chunks, spread over the file however long it turns out to be."""

    def __init__(self) -> None:
        self._kept: list[tuple[pl.DataFrame, pl.DataFrame]] = []
        self._seen, self._every = 0, 1

    def add(self, user: pl.DataFrame, item: pl.DataFrame) -> None:
        if self._seen % self._every == 0 and len(user):
            chosen = np.unique(np.linspace(0, len(user) - 1, EXAMPLE_ROWS).astype(np.int64))
            self._kept.append((user[chosen], item[chosen]))
        self._seen += 1
        if len(self._kept) > EXAMPLE_CHUNKS:
            self._kept, self._every = self._kept[::2], self._every * 2

    def write(self, folder: Path) -> None:
        for place, side in enumerate(SIDES):
            stacked([kept[place] for kept in self._kept]).write_parquet(folder / f"{side}.parquet")
