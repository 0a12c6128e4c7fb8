"""From ids to row numbers, for hundreds of ids at a time.

A dictionary follows three pointers per id, and with a million items each of them leaves the processor's caches. Beside
it stands a flat table of hashes, asked for all ids of a request in one call (`app/native/src/id_index.h`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.features.request_ids import RequestIds, id_hash
from app.native import bindings, layout
from app.runtime.huge_pages import zeros_on_huge_pages

Rows = npt.NDArray[np.int64]

ABSENT, AMBIGUOUS = layout.ABSENT, layout.AMBIGUOUS
FIRST_SLOTS = 4096


class ItemIndex:
    """A dictionary of id to row with a table before it, in which an id is known by its 64-bit hash.

    Ids of one catalogue that share a hash are told apart by the dictionary. A strange id hits a hash in use with a
    chance of 1 in 2**64 per cached item.
    """

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._used = 0
        """Slots of the table."""
        self._allocate(FIRST_SLOTS)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._ids

    def get(self, item_id: str) -> int | None:
        return self._ids.get(item_id)

    def find(self, item_ids: Sequence[str]) -> Rows:
        """Rows [N] of N ids, ABSENT where there is none."""
        ids = RequestIds.from_strings(item_ids)
        row_N = np.empty(len(ids), np.int64)
        if bindings.index_find(self._pointer, self._mask, ids.pointer, len(ids), row_N.ctypes.data):
            for place in np.flatnonzero(row_N == AMBIGUOUS).tolist():
                row_N[place] = self._ids.get(ids[place], ABSENT)
        return row_N

    def insert(self, item_id: str, row: int) -> None:
        """Add an id that is not there."""
        self._ids[item_id] = row
        if 2 * self._used > self._mask:
            self._grow()
        self._used += bindings.index_insert(self._pointer, self._mask, id_hash(item_id), row)

    def remove(self, item_id: str) -> None:
        del self._ids[item_id]
        self._used -= bindings.index_remove(self._pointer, self._mask, id_hash(item_id))

    def _allocate(self, slots: int) -> None:
        self._mask = slots - 1
        self._table = zeros_on_huge_pages((slots, 2), np.int64)
        """Hash and row; hash 0 is nobody's."""
        self._pointer: int = self._table.ctypes.data

    def _grow(self) -> None:
        old, pointer, mask = self._table, self._pointer, self._mask
        self._allocate(2 * len(old))
        bindings.index_copy(pointer, mask, self._pointer, self._mask)
