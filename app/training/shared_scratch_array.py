"""Allocate arrays that the processes of one machine fill together, in an unlinked file that all of them map."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.training.distributed import ProcessGroup
from app.training.scratch_array import HEAP_BYTES, disk_space_errors, scratch_array, size_in_bytes


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
    size = size_in_bytes(shape, dtype)
    if machine_group.size == 1 or folder is None or size == 0:
        return scratch_array(shape, dtype, folder, heap_bytes)

    def create() -> str:
        if not machine_group.is_first:
            return ""
        with disk_space_errors(folder, size):
            descriptor, name = tempfile.mkstemp(prefix=".shared-", dir=folder)
            with open(descriptor, "r+b") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError:
                    os.unlink(name)
                    raise
            return name

    def map_file() -> npt.NDArray[Any]:
        with disk_space_errors(folder, size):
            return np.memmap(name, dtype, "r+", shape=shape)

    name = machine_group.all_gather(machine_group.run_all_or_raise(create))[0]
    try:
        return machine_group.run_all_or_raise(map_file)
    finally:  # all have it open, or none will
        if machine_group.is_first:
            os.unlink(name)
