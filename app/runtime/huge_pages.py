"""Large arrays that are read at random places, on huge pages where the kernel grants them.

With pages of 4 KiB, a random row of a large table costs a walk through the page tables on top of the read.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

HUGE_PAGE_BYTES = 1 << 21
"""Smaller arrays gain nothing."""


def zeros_on_huge_pages(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of zeros, like `np.zeros`; memory is taken from the system as pages are written to."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < HUGE_PAGE_BYTES:
        return np.zeros(shape, dtype)
    # Private, because pages shared with other processes are huge on hardly any system.
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):  # this kernel has none: small pages then
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype, math.prod(shape)).reshape(shape)
