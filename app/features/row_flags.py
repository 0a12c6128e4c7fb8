"""`RowFlags`: what is known of the item of each row of the cache, a byte a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.features.item_index import Rows
from app.runtime.huge_pages import zeros_on_huge_pages

FRESH, KNOWN, VALID, DOUBTED = 1, 2, 4, 8
"""Flags of a row: nothing was written since the item was read, as far as is known; the store had features of it; all of
them fit their slots; it is not fresh because reports may have been missed, and not because one came."""


class RowFlags:
    """The flags of each row; a row without an item has none."""

    def __init__(self, capacity: int) -> None:
        """Begin with rows that have no item."""
        # One row more than there are, which no item has: ABSENT, -1, finds it.
        self._flags_C = zeros_on_huge_pages((capacity + 1,), np.uint8)
        self.address: int = self._flags_C.ctypes.data
        """The address of uint8 [C + 1]."""

    def of(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """Return the flags of rows [N], 0 for ABSENT."""
        return self._flags_C.take(rows)

    def is_fresh(self, row: int) -> bool:
        """Return whether the item of a row is fresh."""
        return bool(self._flags_C[row] & FRESH)

    def not_fresh(self, count: int) -> list[int]:
        """Return those of the first `count` rows that are not fresh, rows without an item among them."""
        return np.flatnonzero((self._flags_C[:count] & FRESH) == 0).tolist()

    def on_read(self, rows: Rows, known: Sequence[bool], valid: Sequence[bool]) -> None:
        """Note that the items of N rows were just read, whether the store has them, and whether their values fit."""
        self._flags_C[rows] = [
            FRESH | (KNOWN if is_known else 0) | (VALID if is_valid else 0)
            for is_known, is_valid in zip(known, valid, strict=True)
        ]

    def confirm(self, rows: Rows) -> None:
        """Note that the items of N rows were just read, and are as they were."""
        self._flags_C[rows] = self._flags_C[rows] & ~np.uint8(DOUBTED) | np.uint8(FRESH)

    def set_stale(self, rows: Rows | Sequence[int] | slice) -> None:
        """Let these rows be fresh no longer: they were written to, or are old."""
        self._flags_C[rows] &= ~np.uint8(FRESH | DOUBTED)

    def doubt(self, rows: Rows | slice) -> None:
        """Let those of these rows that are fresh be so no longer, because reports of them may have been missed."""
        flags = self._flags_C[rows]
        self._flags_C[rows] = np.where(flags & FRESH, flags & ~np.uint8(FRESH) | np.uint8(DOUBTED), flags)

    def clear(self, rows: Sequence[int]) -> None:
        """Note that these rows have no item any more."""
        self._flags_C[rows] = 0
