"""Allocate arrays that may be larger than memory: small ones on the heap, large ones in an unlinked file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import ConfigError
from app.training.data.encoding_limits import DEFAULT_LIMITS
from app.training.distributed import ProcessGroup

HEAP_BYTES = DEFAULT_LIMITS.heap_array_bytes


def scratch_array(
    shape: tuple[int, ...], dtype: npt.DTypeLike, folder: Path | None, heap_bytes: int = HEAP_BYTES
) -> npt.NDArray[Any]:
    """Return an uninitialised array.

    Args:
        folder: where a file may be made; None puts the array on the heap whatever its size. The file has no name, so
            that nothing is left of a process that was killed.
        heap_bytes: the size up to which the array is on the heap.

    Raises:
        ConfigError: the folder has not enough room.
    """
    size = _size(shape, dtype)
    if folder is None or size <= heap_bytes or size == 0:
        return np.empty(shape, dtype)
    with _space_errors(folder, size), tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, a signal later
        return np.memmap(file, dtype, "r+", shape=shape)


def shared_scratch_array(
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    folder: Path | None,
    machine_group: ProcessGroup,
    heap_bytes: int = HEAP_BYTES,
) -> npt.NDArray[Any]:
    """Return the same array in every process. Each fills its slice; then they wait for each other at a barrier.

    Args:
        folder: where the file is made; with None every process has an array of its own, all of which it has to fill.
        machine_group: the processes of this machine.
        heap_bytes: the size up to which the array of a process alone is on the heap.

    Raises:
        ConfigError: the folder has not enough room, in any of the processes.
    """
    size = _size(shape, dtype)
    if machine_group.size == 1 or folder is None or size == 0:
        return scratch_array(shape, dtype, folder, heap_bytes)

    def create() -> str:
        if not machine_group.is_first:
            return ""
        with _space_errors(folder, size):
            descriptor, name = tempfile.mkstemp(prefix=".shared-", dir=folder)
            with open(descriptor, "r+b") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError:
                    os.unlink(name)
                    raise
            return name

    def map_file() -> npt.NDArray[Any]:
        with _space_errors(folder, size):
            return np.memmap(name, dtype, "r+", shape=shape)

    name = machine_group.all_gather(machine_group.run_all_or_raise(create))[0]
    try:
        return machine_group.run_all_or_raise(map_file)
    finally:  # all have it open, or none will
        if machine_group.is_first:
            os.unlink(name)


def _size(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


@contextlib.contextmanager
def _space_errors(folder: Path, size: int) -> Iterator[None]:
    """Turn an OSError into a ConfigError that says how much room is needed."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{folder}: no room for {size / 2**30:.1f} GiB: {error.strerror}; name another folder with --cache"
        ) from error
