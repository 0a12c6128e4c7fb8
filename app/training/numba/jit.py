"""Compile the loops of this room with numba, all with the same options."""

from __future__ import annotations

from typing import Any

import numba
import numpy.typing as npt

Array = npt.NDArray[Any]
fast_njit = numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
"""Compiles with sums in any order and fused multiply-adds; infinities and NaN keep their meaning. The machine code is
cached beside the source file."""
