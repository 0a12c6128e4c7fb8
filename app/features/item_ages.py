"""`ItemAges`: when each cached item was read and what it held, to tell what a store has changed without reporting it.

Redis reports no change by SWAPDB, and proxies may report none at all. So items are read again once in a while, and one
that is then another than it was, though nothing was reported, says that others may be too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from app.features.item_index import Rows
from app.features.store import RawFeatures

REPORT_S = 0.25
"""A report may come this much later than a reply that has the change already: the server sends them at the end of its
turn."""


class ItemAges:
    """The times and contents of rows. Contents are compared by 64-bit digests."""

    def __init__(self, capacity: int) -> None:
        """Begin with no row read."""
        self._read_at_C = np.zeros(capacity)
        self._digest_C = np.zeros(capacity, np.int64)
        self._unreported: dict[str, float] = {}
        """Ids of items found changed, and when."""

    def set(self, rows: Rows, digests_N: npt.NDArray[np.int64]) -> None:
        """Note that N rows were read just now."""
        self._read_at_C[rows] = time.monotonic()
        self._digest_C[rows] = digests_N

    def same(self, rows: Rows, digests_N: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return for N rows whether these are their digests; a row given to another item still has the former one's."""
        return np.equal(self._digest_C[rows], digests_N)

    def older(self, count: int, age_s: float) -> Rows:
        """Return those of the first `count` rows that were read longer ago than `age_s`."""
        return np.flatnonzero(self._read_at_C[:count] < time.monotonic() - age_s)

    def on_changed(self, item_ids: Iterable[str]) -> None:
        """Note items that have changed while they counted as fresh: a report may be on its way."""
        now = time.monotonic()
        for item_id in item_ids:
            self._unreported.setdefault(item_id, now)

    def on_reported(self, item_ids: Iterable[str] | None) -> None:
        """Note that the store reported changes; None stands for any item."""
        if item_ids is None:
            self._unreported.clear()
        elif self._unreported:
            for item_id in item_ids:
                self._unreported.pop(item_id, None)

    def unreported(self) -> bool:
        """Return whether an item has changed of which no report came in time."""
        return bool(self._unreported) and min(self._unreported.values()) < time.monotonic() - REPORT_S


_TEXTS = frozenset((str, type(None)))


def digest(items: Sequence[RawFeatures]) -> npt.NDArray[np.int64]:
    """Return the digests [N] of items' features, which mean something in this process alone."""
    return np.array([_digest(item) for item in items], np.int64)


def _digest(item: RawFeatures) -> int:
    if _TEXTS.issuperset(map(type, item.values())):
        return hash(frozenset(item.items()))
    # Values of a store in memory, or too large ones: -1 and -2 share a hash, 1 is True, lists have none.
    return hash(repr(sorted(item.items())))
