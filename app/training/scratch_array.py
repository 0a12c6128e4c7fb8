"""Arrays that may be larger than memory: on the heap where they are small, in an unlinked file where they are not."""

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
from app.training.distributed import ProcessGroup

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
    with _said(folder, size), tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, a signal later
        return np.memmap(file, dtype, "r+", shape=shape)


def shared_room(
    shape: tuple[int, ...], dtype: npt.DTypeLike, folder: Path | None, group: ProcessGroup
) -> npt.NDArray[Any]:
    """The same array in every process, each of which fills its part; then they `wait` for each other.

    Args:
        folder: as above; with None every process has an array of its own, which it has to fill.
        group: the processes of this machine.

    Raises:
        ConfigError: the folder has not enough room, in any of the processes.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if group.size == 1 or folder is None or size == 0:
        return room(shape, dtype, folder)

    def made() -> str:
        if not group.is_first:
            return ""
        with _said(folder, size):
            number, name = tempfile.mkstemp(prefix=".shared-", dir=folder)
            with open(number, "r+b") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError:
                    os.unlink(name)
                    raise
            return name

    def opened() -> npt.NDArray[Any]:
        with _said(folder, size):
            return np.memmap(name, dtype, "r+", shape=shape)

    name = group.all_gather(group.run_all_or_raise(made))[0]
    try:
        return group.run_all_or_raise(opened)
    finally:  # all have it open, or none will
        if group.is_first:
            os.unlink(name)


@contextlib.contextmanager
def _said(folder: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{folder}: no room for {size / 2**30:.1f} GiB: {error.strerror}; name another folder with --cache"
        ) from error
