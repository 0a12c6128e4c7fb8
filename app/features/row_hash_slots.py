"""`RowHashSlots`: the hash slot, in a cluster, of the key of each cached item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.features.item_index import ABSENT, Rows

HASH_SLOTS = 16_384


class RowHashSlots:
    """A hash slot per row, so that the items of one can be found without computing it for every key."""

    def __init__(self, capacity: int) -> None:
        """Take no memory until the first slot is set: most stores are no cluster."""
        self._capacity = capacity
        self._slot_C: npt.NDArray[np.int16] | None = None

    def set(self, rows: Rows, hash_slots: Sequence[int]) -> None:
        """Note the slots of N rows [N]; ABSENT is passed over."""
        if self._slot_C is None:
            self._slot_C = np.full(self._capacity, -1, np.int16)
        slot_N = np.array(hash_slots, np.int16)
        there = rows != ABSENT
        self._slot_C[rows[there]] = slot_N[there]

    def rows(self, hash_slots: Sequence[int], count: int) -> Rows:
        """Return those of the first `count` rows whose items are in one of these slots."""
        if self._slot_C is None:
            return np.empty(0, np.int64)
        wanted = np.zeros(HASH_SLOTS + 1, np.bool_)  # the last is for -1, a row that has no slot
        wanted[list(hash_slots)] = True
        return np.flatnonzero(wanted[self._slot_C[:count]])
