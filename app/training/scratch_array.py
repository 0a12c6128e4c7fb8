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
    size = size_in_bytes(shape, dtype)
    if folder is None or size <= heap_bytes or size == 0:
        return np.empty(shape, dtype)
    with disk_space_errors(folder, size), tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, a signal later
        return np.memmap(file, dtype, "r+", shape=shape)


def size_in_bytes(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Return the size of an array."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


@contextlib.contextmanager
def disk_space_errors(folder: Path, size: int) -> Iterator[None]:
    """Turn an OSError into a ConfigError that says how much room is needed."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{folder}: no room for {size / 2**30:.1f} GiB: {error.strerror}; name another folder with --cache"
        ) from error
