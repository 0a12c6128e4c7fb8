"""`SpoolLimit`: how much may wait in the spool for a destination that is away."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOOK_EVERY_S = 5.0
"""To add up the sizes of ten thousand files takes some ten milliseconds."""


class SpoolLimit:
    """Watches the size of a folder, which the processes of a machine share."""

    def __init__(self, folder: Path, limit: int, now_s: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            limit: bytes beyond which nothing more is written.
        """
        self._folder = folder
        self.limit = limit
        self._now_s = now_s
        self._looked_s = -float("inf")
        self._size = 0

    @property
    def size(self) -> int:
        """How many bytes are there, as of a few seconds ago."""
        if self._now_s() - self._looked_s >= LOOK_EVERY_S:
            self._size, self._looked_s = folder_size(self._folder), self._now_s()
        return self._size

    @property
    def is_full(self) -> bool:
        """Whether there is no room for more."""
        return self.size >= self.limit


def folder_size(folder: Path) -> int:
    """Return how many bytes the files below a folder have; 0 where it does not exist."""
    size = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    size += folder_size(Path(entry)) if entry.is_dir() else entry.stat().st_size
                except FileNotFoundError:  # it has been delivered
                    continue
    except FileNotFoundError:
        return 0
    return size
