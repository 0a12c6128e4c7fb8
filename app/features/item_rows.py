"""`ItemRows`: which row of the item cache belongs to which item, and which rows are evicted for new items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.features.item_index import ABSENT, ItemIndex, Rows
from app.runtime.huge_pages import zeros_on_huge_pages

EVICTION_DIVISOR = 16
"""At least the capacity divided by this number is evicted at a time."""


class ItemRows:
    """Assigns rows to items. The least recently used rows are evicted, but none that a request has pinned."""

    def __init__(self, capacity: int) -> None:
        """Begin with all rows free."""
        self.capacity = capacity
        self.index = ItemIndex()
        self.ids: list[str | None] = []
        """[rows ever used], None for a row that is free."""
        self.uses = 0
        """The number of uses of rows so far."""
        # One row more than the capacity, which no item has: ABSENT, -1, finds it.
        self._used_C = zeros_on_huge_pages((capacity + 1,), np.int64)
        self.used_address: int = self._used_C.ctypes.data
        """The address of int64 [capacity + 1]: the number of each row's last use."""
        self._free: list[int] = []
        self._pinned: dict[int, Rows] = {}
        """The pinned arrays by their `id`."""

    def pin(self, rows: Rows) -> None:
        """Keep rows from being evicted until `unpin` is called with the same array; ABSENT is passed over."""
        self._pinned[id(rows)] = rows

    def unpin(self, rows: Rows) -> None:
        """Undo `pin` of this array."""
        del self._pinned[id(rows)]

    def assign(self, item_ids: Sequence[str]) -> tuple[Rows, list[int]]:
        """Give rows to items that have none.

        Returns:
            The rows [N] of N ids, ABSENT for ids for which no row can be evicted; and the rows that were evicted, some
            of which may belong to these ids now.
        """
        cached = [row for item_id in item_ids if (row := self.index.get(item_id)) is not None]
        available = self.capacity - len(self.index)
        needed = len(item_ids) - len(cached) - available
        evicted = self._evict(needed, keep=cached) if needed > 0 else []
        available += len(evicted)
        rows = np.full(len(item_ids), ABSENT)
        for position, item_id in enumerate(item_ids):
            row = self.index.get(item_id)
            if row is None:
                if not available:
                    continue
                available -= 1
                row = self._take_free_row(item_id)
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

    def _evict(self, needed: int, keep: Sequence[int]) -> list[int]:
        """Evict the least recently used rows that are neither pinned nor among `keep`; return them."""
        # One element more than there are rows, which ABSENT, -1, marks.
        protected = np.zeros(len(self.ids) + 1, np.bool_)
        protected[[*keep, *self._free]] = True
        for rows in self._pinned.values():
            protected[rows] = True
        evictable = len(self.ids) - int(np.count_nonzero(protected[:-1]))
        count = min(max(needed, self.capacity // EVICTION_DIVISOR), evictable)
        if not count:
            return []
        last_used = self._used_C[: len(self.ids)].copy()
        last_used[protected[:-1]] = np.iinfo(np.int64).max
        evicted: list[int] = np.argpartition(last_used, count - 1)[:count].tolist()
        for row in evicted:
            item_id = self.ids[row]
            if item_id is not None:
                self.index.remove(item_id)
            self.ids[row] = None
            self._free.append(row)
        return evicted
