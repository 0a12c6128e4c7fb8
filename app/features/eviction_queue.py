"""`EvictionQueue`: the rows of the item cache that are evicted next, the least recently used first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from app.features.item_index import Rows


class EvictionQueue:
    """Rows in the order of their last uses, as it was when all rows were last looked through.

    To look a million rows through takes ten milliseconds, so it is done once for many evictions. A row that was used
    since is passed over; those that were not in the queue have been used later than all that are.
    """

    def __init__(self, used_C: npt.NDArray[np.int64], length: int) -> None:
        """
        Args:
            used_C: the number of each row's last use.
            length: rows that are queued at once.
        """
        self._used_C = used_C
        self._length = length
        self._row_Q: Rows = np.empty(0, np.int64)
        self._last_use_Q = np.empty(0, np.int64)
        self._next = 0

    def take(self, count: int, evictable: Callable[[], Rows], spares: Callable[[int], bool]) -> list[int]:
        """Return rows to evict, fewer than `count` where there are not as many.

        Args:
            evictable: returns all rows that may be evicted, of which none is pinned. A row that is pinned later was
                used later.
            spares: whether a row may not be evicted any more though it was not used.
        """
        taken: list[int] = []
        is_filled = False
        while len(taken) < count:
            if self._next == len(self._row_Q):
                if is_filled:
                    break
                row_E = evictable()
                self._fill(row_E[~np.isin(row_E, taken)], count - len(taken))
                is_filled = True
                continue
            row, last_use = int(self._row_Q[self._next]), self._last_use_Q[self._next]
            self._next += 1
            if self._used_C[row] == last_use and not spares(row):
                taken.append(row)
        return taken

    def _fill(self, row_E: Rows, least: int) -> None:
        length = min(max(self._length, least), len(row_E))
        used_E = self._used_C[row_E]
        if length < len(row_E):
            oldest = np.argpartition(used_E, length)[:length]
            row_E, used_E = row_E[oldest], used_E[oldest]
        order = np.argsort(used_E, kind="stable")
        self._row_Q, self._last_use_Q, self._next = row_E[order], used_E[order], 0
