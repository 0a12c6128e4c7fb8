"""Large arrays that are read at random places, on huge pages where the kernel grants them.

With 4 KiB pages a random row of a large table costs a walk through the page tables on top of the read.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

WORTH_BYTES = 1 << 21


def zeros_on_huge_pages(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of zeros; memory is taken from the system page by page as it is written to."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < WORTH_BYTES:
        return np.zeros(shape, dtype)
    # Private, as pages shared with other processes are huge on hardly any system.
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):  # not on this kernel: small pages then
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype, math.prod(shape)).reshape(shape)
