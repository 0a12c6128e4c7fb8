"""Compile the loops of this room with numba, all with the same options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numba
import numpy.typing as npt
import structlog

from app.runtime.writable import private_folder, writable_folder

Array = npt.NDArray[Any]
CACHE_VARIABLE = "NUMBA_CACHE_DIR"


def cache_folder() -> Path | None:
    """Return where machine code is kept from one run to the next; None if it can be kept nowhere.

    It is NUMBA_CACHE_DIR if that is set, else beside the source, else, where that is read-only or another user's,
    among the temporary files.
    """
    if os.environ.get(CACHE_VARIABLE):
        return writable_folder([Path(os.environ[CACHE_VARIABLE])])
    return writable_folder([Path(__file__).parent / "__pycache__"]) or private_folder("ctr-numba")


def _is_cached() -> bool:
    """Choose the folder before anything is compiled, and say so once if there is none."""
    folder = cache_folder()
    if folder is None:
        structlog.get_logger(__name__).warning(
            "numba_cache_has_no_place", effect=f"loops are compiled in each run; set {CACHE_VARIABLE} or mount /tmp"
        )
        return False
    if folder != Path(__file__).parent / "__pycache__":
        vars(numba.config)["CACHE_DIR"] = str(folder)  # it has read the environment by now
    return True


fast_njit = numba.njit(cache=_is_cached(), fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
"""Compiles with sums in any order and fused multiply-adds; infinities and NaN keep their meaning."""
