"""From ids to row numbers, for hundreds of ids at a time.

A dictionary follows three pointers per id, and with a million items each of them leaves the processor's caches: 500
look-ups took 60 us with 20,000 items and 410 us with 1,000,000. Open addressing over two flat arrays, probed for all
ids at once, took 55 and 65 us (docs/adr/0002).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.features.pages import zeros

Rows = npt.NDArray[np.int64]

ABSENT = -1
FIRST_SLOTS = 4096
LOAD = 4
"""Slots per id at the least: nearly every id is found at its first probe."""


class IdIndex:
    """A hash table of id to row. An id is known by its 64-bit `hash()`, which Python salts per process.

    Two ids of one catalogue with the same hash would be told apart: the second is kept in a dictionary, which is
    looked at only when it is not empty. A strange id hits a hash in use with a chance of 1 in 2**64 per cached item.
    """

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._allocate(FIRST_SLOTS)
        self._colliding: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._ids

    def get(self, item_id: str) -> int | None:
        return self._ids.get(item_id)

    def find(self, item_ids: Sequence[str]) -> Rows:
        """Rows [N] of N ids, ABSENT where there is none."""
        count = len(item_ids)
        hash_N = np.fromiter(map(hash, item_ids), np.int64, count)
        place_N = hash_N & self._mask
        row_N = self._rows.take(place_N)
        missed = np.flatnonzero(self._hashes.take(place_N) != hash_N)
        while missed.size:
            # An empty slot ends a search, a removed one (row REMOVED) does not.
            missed = missed[row_N.take(missed) != _EMPTY]
            if not missed.size:
                break
            place = (place_N.take(missed) + 1) & self._mask
            place_N[missed] = place
            row_N[missed] = self._rows.take(place)
            missed = missed[self._hashes.take(place) != hash_N.take(missed)]
        # Rows are stored as 1, 2, ... so that untouched memory, which is 0, means empty; removed is negative.
        found_N = np.maximum(row_N, 0).astype(np.int64) - 1
        if self._colliding:
            for index, item_id in enumerate(item_ids):
                if item_id in self._colliding:
                    found_N[index] = self._colliding[item_id]
        return found_N  # type: ignore[no-any-return]

    def insert(self, item_id: str, row: int) -> None:
        """Add an id that is not there."""
        self._ids[item_id] = row
        if (self._used + 1) * LOAD > self._mask + 1:
            self._rebuild()
            return
        self._place(item_id, row)

    def remove(self, item_id: str) -> None:
        del self._ids[item_id]
        if self._colliding.pop(item_id, None) is not None:
            return
        hashed = hash(item_id)
        place = hashed & self._mask
        while self._rows[place] == _EMPTY or self._hashes[place] != hashed:
            place = (place + 1) & self._mask
        self._rows[place] = _REMOVED
        # No search stops here: one for this hash would begin at the next slot, and the table is never full.
        self._hashes[place] = (place + 1) & self._mask

    def _place(self, item_id: str, row: int) -> None:
        hashed = hash(item_id)
        place = hashed & self._mask
        while self._rows[place] != _EMPTY:
            if self._hashes[place] == hashed and self._rows[place] != _REMOVED:
                self._colliding[item_id] = row
                return
            place = (place + 1) & self._mask
        self._hashes[place] = hashed
        self._rows[place] = row + 1
        self._used += 1

    def _allocate(self, slots: int) -> None:
        self._mask = slots - 1
        self._hashes = zeros((slots,), np.int64)
        self._rows = zeros((slots,), np.int32)
        self._used = 0
        """Slots taken, removed ones included."""

    def _rebuild(self) -> None:
        """Room for twice as many ids as there are, without the removed ones."""
        self._allocate(max(FIRST_SLOTS, 1 << (2 * LOAD * len(self._ids)).bit_length()))
        self._colliding.clear()
        hash_N = np.fromiter(map(hash, self._ids), np.int64, len(self._ids))
        row_N = np.fromiter(self._ids.values(), np.int32, len(self._ids)) + 1
        distinct_N = np.zeros(len(self._ids), np.bool_)
        distinct_N[np.unique(hash_N, return_index=True)[1]] = True
        for item_id, row in [pair for pair, one in zip(self._ids.items(), distinct_N, strict=True) if not one]:
            self._colliding[item_id] = row
        left = np.flatnonzero(distinct_N)
        place_N = hash_N & self._mask
        while left.size:
            empty = left[self._rows[place_N[left]] == _EMPTY]
            # Of several that want one slot, the last to write it has it; the others see another's hash and go on.
            self._rows[place_N[empty]] = row_N[empty]
            self._hashes[place_N[empty]] = hash_N[empty]
            placed = empty[self._rows[place_N[empty]] == row_N[empty]]
            left = np.setdiff1d(left, placed, assume_unique=True)
            place_N[left] = (place_N[left] + 1) & self._mask
        self._used = int(distinct_N.sum())


_EMPTY, _REMOVED = 0, -1
