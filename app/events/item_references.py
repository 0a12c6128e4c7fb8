"""`ItemReferences` has each item's slots written once, and gives impressions the numbers that they refer to them by.

Slots are a few hundred bytes an item and the same in most impressions; a reference is eight bytes. An item's slots are
written again after each change, for each schema, and on each day, so that an old day's records can be deleted; and
where somebody has deleted what was written today.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from app.events.event_queue import EventQueue
from app.events.records import ItemSlots, References
from app.features.item_index import Rows
from app.features.item_tables import ItemModel
from app.features.slots import Slots

SEQUENCE_BITS = 23
"""A worker counts in so many bits of a reference, below 40 bits that it draws, and again on each day."""
DAY_S = 86_400


class CachedItems(Protocol):
    """The part of `ItemCache` that references need."""

    def log_references(self, model: ItemModel) -> References:
        """Return the table [C] of rows' references, for the log to write to; 0 after a row was written to."""

    def slots(self, model: ItemModel, rows: Rows) -> Slots:
        """Return the slots [N, S] of rows."""

    def ids(self, rows: Rows) -> list[str]:
        """Return the ids of the items that these rows hold."""


class ItemReferences:
    """Numbers items' slots. One per process, for the thread of its event loop."""

    def __init__(self, cache: CachedItems, queue: EventQueue, now_s: Callable[[], float] = time.time) -> None:
        """
        Args:
            cache: holds the items that are shown.
            queue: takes the records of their slots.
        """
        self._cache = cache
        self._queue = queue
        self._now_s = now_s
        self._renew(int.from_bytes(os.urandom(5)) >> 1 << SEQUENCE_BITS)

    def of_rows(self, model: ItemModel, rows: Rows) -> References | None:
        """Return the references [K] of rows of the cache.

        None if there is no room to write what they refer to, or the version has been retired.
        """
        self._renew_if_due()
        try:
            table_C = self._cache.log_references(model)
        except KeyError:
            return None
        reference_K = table_C[rows]
        if np.minimum.reduce(reference_K, initial=self._base) < self._base:
            new = np.unique(rows[reference_K < self._base])
            written = self._write(model, self._cache.ids(new), self._cache.slots(model, new))
            if written is None:
                return None
            table_C[new] = written
            reference_K = table_C[rows]
        return reference_K

    def known(self, model: ItemModel, rows: Rows) -> References:
        """Return the references [K] that rows of the cache have already, 0 for those that have none."""
        self._renew_if_due()
        reference_K = self._cache.log_references(model)[rows]
        return np.where(reference_K < self._base, 0, reference_K)

    def of_slots(self, model: ItemModel, item_ids: Sequence[str], slots: Slots) -> References | None:
        """Return new references [K] of items as one request alone had them [K, S], say with values that it sent.

        None if there is no room to write them.
        """
        self._renew_if_due()
        return self._write(model, item_ids, slots)

    def _write(self, model: ItemModel, item_ids: Sequence[str], slots: Slots) -> References | None:
        """Put the records of N items into the queue; return their references, None if there is no room."""
        queue, count = self._queue, len(item_ids)
        if len(queue) + count >= queue.limit:
            return None
        at_us, schema_hash = int(self._now_s() * 1e6), model.schema_hash
        references = np.arange(self._next, self._next + count)
        self._next += count
        for reference, item_id, keys, values in zip(references.tolist(), item_ids, *slots, strict=True):
            queue.put(ItemSlots(reference, item_id, at_us, schema_hash, keys, values))
        return references

    def _renew_if_due(self) -> None:
        if self._now_s() >= self._next_day or self._next >= self._last or self._queue.items_are_lost:
            self._queue.items_are_lost = False
            self._renew(self._base)

    def _renew(self, after: int) -> None:
        """Take a random base above `after`, below which references are out of date: all slots are written again."""
        self._base = self._next = after + (1 + int.from_bytes(os.urandom(2)) << SEQUENCE_BITS)
        self._last = self._base + (1 << SEQUENCE_BITS) - (1 << 16)  # a request never has that many items
        self._next_day = (self._now_s() // DAY_S + 1) * DAY_S
