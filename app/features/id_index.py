"""From ids to row numbers, for hundreds of ids at a time.

A dictionary follows three pointers per id, and with a million items each of them leaves the processor's caches: 500
look-ups took 60 us with 20,000 items and 410 us with 1,000,000. Two flat arrays, asked for all ids at once, answer for
19 of 20 ids; the dictionary is asked for the rest, which took 70 and 110 us with all else that a look-up needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.features.pages import zeros

Rows = npt.NDArray[np.int64]

ABSENT = -1
FIRST_SLOTS = 4096
LOAD = 8
"""Slots per id at the least: one id in 16, at the worst one in 8, finds its slot taken."""


class IdIndex:
    """A dictionary of id to row with a table before it, in which an id has one slot or none.

    In the table an id is known by its 64-bit `hash()`, which Python salts per process. Ids of one catalogue that share
    a hash are kept out of it. A strange id hits a hash in use with a chance of 1 in 2**64 per cached item.
    """

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._displaced: set[int] = set()
        """Hashes of ids whose slot was taken."""
        self._shared: set[int] = set()
        """Hashes of more than one id, now or once."""
        self._allocate(FIRST_SLOTS)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._ids

    def get(self, item_id: str) -> int | None:
        return self._ids.get(item_id)

    def find(self, item_ids: Sequence[str]) -> Rows:
        """Rows [N] of N ids, ABSENT where there is none."""
        hash_N = np.fromiter(map(hash, item_ids), np.int64, len(item_ids))
        place_N = hash_N & self._mask
        found_N = self._rows.take(place_N).astype(np.int64)
        elsewhere_N = self._hashes.take(place_N) != hash_N
        get = self._ids.get
        for index in elsewhere_N.nonzero()[0].tolist():
            found_N[index] = get(item_ids[index], ABSENT)
        return found_N

    def insert(self, item_id: str, row: int) -> None:
        """Add an id that is not there."""
        self._ids[item_id] = row
        if len(self._ids) * LOAD > self._mask + 1:
            self._rebuild()
            return
        hashed = hash(item_id)
        place = hashed & self._mask
        if self._hashes[place] == hashed:
            self._shared.add(hashed)
            self._hashes[place] = _nobody(place)
        elif hashed in self._displaced:
            self._shared.add(hashed)
        elif hashed in self._shared:
            pass
        elif self._hashes[place] == _nobody(place):
            self._hashes[place] = hashed
            self._rows[place] = row
        else:
            self._displaced.add(hashed)

    def remove(self, item_id: str) -> None:
        del self._ids[item_id]
        hashed = hash(item_id)
        place = hashed & self._mask
        if self._hashes[place] == hashed:
            self._hashes[place] = _nobody(place)
        else:
            self._displaced.discard(hashed)

    def _allocate(self, slots: int) -> None:
        self._mask = slots - 1
        self._hashes = zeros((slots,), np.int64)
        self._hashes[0] = _nobody(0)
        self._rows = zeros((slots,), np.int32)

    def _rebuild(self) -> None:
        """Room for twice as many ids as there are."""
        count = len(self._ids)
        self._allocate(max(FIRST_SLOTS, 1 << (2 * LOAD * count - 1).bit_length()))
        hash_N = np.fromiter(map(hash, self._ids), np.int64, count)
        row_N = np.fromiter(self._ids.values(), np.int32, count)
        distinct, inverse_N, times = np.unique(hash_N, return_inverse=True, return_counts=True)
        self._shared = set(distinct[times > 1].tolist())
        alone_N = times[inverse_N] == 1
        hash_N, row_N = hash_N[alone_N], row_N[alone_N]
        place_N = hash_N & self._mask
        self._rows[place_N] = row_N
        won_N = self._rows[place_N] == row_N  # of several ids with one slot
        self._hashes[place_N[won_N]] = hash_N[won_N]
        self._displaced = set(hash_N[~won_N].tolist())


def _nobody(place: int) -> int:
    """What an empty slot holds: no hash that has its place there. Untouched memory is 0, so that is right but once."""
    return 0 if place else 1
