"""`ItemRows`: which row of the item cache belongs to which item, and which rows are evicted for new items."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from app.features.eviction_queue import EvictionQueue
from app.features.item_index import ABSENT, ItemIndex, Rows
from app.runtime.huge_pages import zeros_on_huge_pages

UNKNOWN_DIVISOR = 64
"""By default there is a row for an item that the store does not know for so many rows of those that it knows."""
QUEUE_DIVISOR, EVICTED_AT_ONCE = 16, 64
"""A capacity divided by the first is queued to be evicted, and so many of them are at a time, or what is needed: a
quarter of a millisecond with what the tables hold of them, where the whole queue takes a tenth of a second."""
UNKNOWN_EVICTION_INTERVAL_S = 1.0
"""Seconds at least between two evictions of items that the store does not know, so that others of them can be cached.
Invented ids are never asked for again: to cache them all costs more than to encode them for their requests."""


class ItemRows:
    """Assigns rows to items. The least recently used rows are evicted, but none that a request has pinned.

    Items that the store knows and items that it does not know have a capacity each, and evict rows of their own kind
    alone: whoever asks for invented items takes no row from the catalogue. Those that the store does not know are
    evicted for others of them once a second at most.
    """

    def __init__(
        self, capacity: int, unknown_capacity: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with all rows free.

        Args:
            clock: gives the time, in seconds.
        """
        self.capacity = capacity
        self.unknown_capacity = max(1, capacity // UNKNOWN_DIVISOR) if unknown_capacity is None else unknown_capacity
        self.count = capacity + self.unknown_capacity
        """The number of rows, C."""
        self.index = ItemIndex()
        self.ids: list[str | None] = []
        """[rows ever used], None for a row that is free."""
        self.uses = 0
        """The number of uses of rows so far."""
        # One row more than there are, which no item has: ABSENT, -1, finds it.
        self._used_C = zeros_on_huge_pages((self.count + 1,), np.int64)
        self.used_address: int = self._used_C.ctypes.data
        """The address of int64 [C + 1]: the number of each row's last use."""
        self._free: list[int] = []
        self._clock = clock
        self._next_unknown_eviction = 0.0
        """Time from which on items that the store does not know may be evicted for others of them."""
        self._unknown: set[int] = set()
        """The rows of items that the store does not know."""
        self._pinned: dict[int, Rows] = {}
        """The pinned arrays by their `id`."""
        self._queues = {
            True: EvictionQueue(self._used_C, capacity // QUEUE_DIVISOR),
            False: EvictionQueue(self._used_C, self.unknown_capacity // QUEUE_DIVISOR),
        }
        """Of items that the store knows, and of others."""

    @property
    def known(self) -> int:
        """The number of rows of items that the store knows."""
        return len(self.index) - len(self._unknown)

    def pin(self, rows: Rows) -> None:
        """Keep rows from being evicted until `unpin` is called with the same array; ABSENT is passed over."""
        self._pinned[id(rows)] = rows

    def unpin(self, rows: Rows) -> None:
        """Undo `pin` of this array."""
        del self._pinned[id(rows)]

    def assign(self, item_ids: Sequence[str], known: Sequence[bool]) -> tuple[Rows, list[int]]:
        """Give rows to items that have none.

        Args:
            known: whether the store knows each item.

        Returns:
            The rows [N] of N ids, ABSENT for ids for which no row can be evicted now; and the rows that were evicted,
            some of which may belong to these ids now.
        """
        cached: list[int] = []
        for item_id, is_known in zip(item_ids, known, strict=True):
            row = self.index.get(item_id)
            if row is not None:
                cached.append(row)
                (self._unknown.discard if is_known else self._unknown.add)(row)
        lacking = {
            item_id: is_known for item_id, is_known in zip(item_ids, known, strict=True) if item_id not in self.index
        }
        new_known = sum(lacking.values())
        evicted = self._evict(self.known + new_known - self.capacity, cached, known=True)
        surplus = len(self._unknown) - self.unknown_capacity  # of items that the store knew when they were cached
        wanted = surplus + len(lacking) - new_known
        may_evict = wanted > max(surplus, 0) and self._clock() >= self._next_unknown_eviction
        unknown_evicted = self._evict(wanted if may_evict else surplus, cached, known=False)
        if may_evict and unknown_evicted:
            self._next_unknown_eviction = self._clock() + UNKNOWN_EVICTION_INTERVAL_S
        evicted += unknown_evicted
        rows = np.full(len(item_ids), ABSENT)
        for position, (item_id, is_known) in enumerate(zip(item_ids, known, strict=True)):
            row = self.index.get(item_id)
            if row is None:
                is_full = self.known >= self.capacity if is_known else len(self._unknown) >= self.unknown_capacity
                if is_full or len(self.index) == self.count:
                    continue
                row = self._take_free_row(item_id)
                if not is_known:
                    self._unknown.add(row)
                self._used_C[row] = self.uses  # reading an item again is no use of it
            rows[position] = row
        return rows, evicted

    def _take_free_row(self, item_id: str) -> int:
        if self._free:
            row = self._free.pop()
            self.ids[row] = item_id
        else:
            row = len(self.ids)
            self.ids.append(item_id)
        self.index.insert(item_id, row)
        return row

    def _evict(self, needed: int, keep: Sequence[int], *, known: bool) -> list[int]:
        """Evict the least recently used rows of one kind that are neither pinned nor among `keep`; return them."""
        if needed <= 0:
            return []
        kept = set(keep)

        def spares(row: int) -> bool:
            return self.ids[row] is None or row in kept or (row in self._unknown) is known

        capacity = self.capacity if known else self.unknown_capacity
        count = max(needed, min(EVICTED_AT_ONCE, capacity // QUEUE_DIVISOR))
        evicted = self._queues[known].take(count, lambda: self._evictable(kept, known=known), spares)
        for row in evicted:
            item_id = self.ids[row]
            assert item_id is not None
            self.index.remove(item_id)
            self.ids[row] = None
            self._free.append(row)
        self._unknown.difference_update(evicted)
        return evicted

    def _evictable(self, kept: set[int], *, known: bool) -> Rows:
        """Return the rows of one kind that are neither pinned nor to be kept."""
        # One element more than there are rows, which ABSENT, -1, marks.
        protected = np.zeros(len(self.ids) + 1, np.bool_)
        protected[[*kept, *self._free]] = True
        for rows in self._pinned.values():
            protected[rows] = True
        unknown = np.fromiter(self._unknown, np.int64, len(self._unknown))
        if not known:
            return unknown[~protected[unknown]]
        protected[unknown] = True
        return np.flatnonzero(~protected[:-1])
