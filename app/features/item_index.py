"""`ItemIndex` maps ids to row numbers, hundreds of ids at a time.

A dictionary follows three pointers for an id, and with a million items each of them leaves the processor's caches.
Beside the dictionary stands a flat table of hashes, which one call searches for all ids of a request
(`app/native/src/id_index.h`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from app.features.request_ids import RequestIds, id_hash
from app.native import bindings
from app.native.layout import ABSENT, AMBIGUOUS
from app.runtime.huge_pages import zeros_on_huge_pages

__all__ = ["ABSENT", "ItemIndex", "Rows"]

Rows = npt.NDArray[np.int64]
FIRST_SLOTS = 4096


class ItemIndex:
    """A dictionary of id to row, with a table in front in which an id is known by its 64-bit hash.

    The dictionary tells apart the ids of one catalogue that share a hash. The chance that an unknown id has a hash in
    use is 1 in 2**64 for each cached item.
    """

    def __init__(self, hash_of: Callable[[str], int] = id_hash) -> None:
        """
        Args:
            hash_of: the hash of an id; tests replace it by one that ids share.
        """
        self._hash_of = hash_of
        self._rows: dict[str, int] = {}
        self._used_slots = 0
        self._allocate(FIRST_SLOTS)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._rows

    def get(self, item_id: str) -> int | None:
        """Return the row of one id, None if it has none."""
        return self._rows.get(item_id)

    def find(self, item_ids: Sequence[str]) -> Rows:
        """Return the rows [N] of N ids, ABSENT for an id that has none."""
        ids = RequestIds.from_strings(item_ids)
        row_N = np.empty(len(ids), np.int64)
        if bindings.index_find(self._address, self._mask, ids.pointer, len(ids), row_N.ctypes.data):
            for position in np.flatnonzero(row_N == AMBIGUOUS).tolist():
                row_N[position] = self._rows.get(ids[position], ABSENT)
        return row_N

    def insert(self, item_id: str, row: int) -> None:
        """Add an id that has no row yet."""
        self._rows[item_id] = row
        if 2 * self._used_slots > self._mask:
            self._grow()
        self._used_slots += bindings.index_insert(self._address, self._mask, self._hash_of(item_id), row)

    def remove(self, item_id: str) -> None:
        """Take an id out. Raises KeyError if it has no row."""
        del self._rows[item_id]
        self._used_slots -= bindings.index_remove(self._address, self._mask, self._hash_of(item_id))

    def _allocate(self, slots: int) -> None:
        self._mask = slots - 1
        self._table = zeros_on_huge_pages((slots, 2), np.int64)
        """Hash and row of each slot; hash 0 marks an empty one."""
        self._address: int = self._table.ctypes.data

    def _grow(self) -> None:
        old_table, old_address, old_mask = self._table, self._address, self._mask
        self._allocate(2 * len(old_table))
        bindings.index_copy(old_address, old_mask, self._address, self._mask)
