"""Arrays that may be larger than memory: on the heap where they are small, in an unlinked file where they are not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import ConfigError

HEAP_BYTES = 256 << 20
"""A larger array goes to a file, whose pages the system drops and reads again as memory gets short."""


def room(shape: tuple[int, ...], dtype: npt.DTypeLike, folder: Path | None, heap: int = HEAP_BYTES) -> npt.NDArray[Any]:
    """An array to fill.

    Args:
        folder: where a file may be made; None asks for the heap whatever the size. The file has no name, so that
            nothing is left of a process that was killed.
        heap: size in bytes up to which the heap is taken.

    Raises:
        ConfigError: the folder has not enough room.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if folder is None or size <= heap or size == 0:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, a signal later
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise ConfigError(
            f"{folder}: no room for {size / 2**30:.1f} GiB: {error.strerror}; name another folder with --cache"
        ) from error
