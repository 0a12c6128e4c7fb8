"""`ItemCache`: items of the catalogue, encoded once and kept in the process, so that requests gather rows.

A cached item is a row number, by which `app.features.item_tables` keeps its encoded slots and its item states.

All methods run on the event loop's thread, so none of them sees another's work half done. Between two of them, while a
request awaits something, any row may be evicted and given to another item, unless the request has pinned it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.features.cache_counts import CacheCounts
from app.features.item_ages import ItemAges, digest
from app.features.item_index import ABSENT, Rows
from app.features.item_rows import ItemRows
from app.features.item_tables import ItemModel, ItemTables, SlotTable
from app.features.row_flags import FRESH, VALID, RowFlags
from app.features.row_hash_slots import RowHashSlots
from app.features.slots import Slots
from app.features.store import RawFeatures
from app.native import bindings, layout
from app.runtime.loop_pacer import LoopPacer

ENCODE_CHUNK = 128
"""Rows encoded at a time for a new version: about half a millisecond beside requests; shorter slices cost more."""


class CacheLookup(NamedTuple):
    """The result of `ItemCache.find` for N ids."""

    rows: Rows
    """[N], ABSENT for an id that is not cached."""
    flags_all: int
    """The flags that all of the rows have; none if a row is ABSENT."""
    distinct: bool
    """No row occurs twice; False also if several rows are ABSENT."""


class ItemCache:
    """A bounded cache of items, which evicts the least recently used. It is the `Listener` of a `FeatureStore`.

    Items that the store does not know have few rows of their own: they are made up as easily as asked for.
    """

    def __init__(
        self,
        capacity: int,
        *,
        unknown_capacity: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        aged: bool = False,
    ) -> None:
        """
        Args:
            capacity: items held at most of those that the store knows.
            unknown_capacity: items held at most beside them, of those that the store does not know; by default a
                small share of the capacity (`UNKNOWN_DIVISOR`).
            device, dtype: where the item states are, and their precision.
            aged: somebody calls `expire` regularly, so that items may be fresh though the store reports no changes.
        """
        self.capacity = capacity
        self.aged = aged
        self.counts = CacheCounts()
        self.dtype = dtype
        self._rows = ItemRows(capacity, unknown_capacity)
        self._flags = RowFlags(self._rows.count)
        self._flags_address = self._flags.address
        self._tables = ItemTables(self._rows.count, torch.device(device), dtype)
        self._ages = ItemAges(self._rows.count)
        self._hash_slots = RowHashSlots(self._rows.count)
        self._next_row = 0
        self.before_change: Callable[[], None] = lambda: None
        """Called before rows change or a version goes, for who has noted rows and not yet looked what they hold."""
        self.on_written: Callable[[Sequence[str]], None] = lambda item_ids: None
        """Called with the cached items that the store reports as written."""

    def __len__(self) -> int:
        return len(self._rows.index)

    @property
    def vacant(self) -> int:
        """How many items of the store find a row without another being evicted."""
        return max(0, self.capacity - self._rows.known)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._rows.index

    def find(self, item_ids: Sequence[str]) -> CacheLookup:
        """Look N ids up, and mark their rows as used."""
        rows = self._rows
        row_N = rows.index.find(item_ids)
        # Each use has a number of its own, so a row that occurs twice shows by a number that was overwritten.
        flags = bindings.mark_used(
            row_N.ctypes.data, len(row_N), self._flags_address, rows.used_address, rows.count, rows.uses
        )
        rows.uses += len(row_N)
        return CacheLookup(row_N, flags & ~layout.ALL_DISTINCT, bool(flags & layout.ALL_DISTINCT))

    def pin(self, rows: Rows) -> None:
        """Keep rows from being evicted until `unpin` is called with the same array; ABSENT is passed over."""
        self._rows.pin(rows)

    def unpin(self, rows: Rows) -> None:
        """Undo `pin` of this array."""
        self._rows.unpin(rows)

    def flags(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """Return the flags of rows [N], 0 for ABSENT."""
        return self._flags.of(rows)

    def states(self, model: ItemModel) -> Tensor:
        """Return the item states [C, D] of a version; only rows of cached items mean anything.

        Raises KeyError if the version is not attached, or not all cached items have their states yet: one that comes
        back after it was retired begins with an empty table, while requests of its first time may still be waiting.
        """
        table = self._tables.by_model[id(model)]
        if not table.is_filled:
            raise KeyError(id(model))
        return table.states_CD

    def slots(self, model: ItemModel, rows: Rows) -> Slots:
        """Return the encoded slots [N, S] of rows, under the schema of an attached version."""
        return self.slot_table(model).slots(rows)

    def slot_table(self, model: ItemModel) -> SlotTable:
        """Return the table of slots under the schema of an attached version.

        It may be read as long as the rows are pinned, also once the version is not attached any more. Raises KeyError
        if it is not attached.
        """
        return self._tables.by_model[id(model)].slot_table

    def log_references(self, model: ItemModel) -> npt.NDArray[np.int64]:
        """Return the table [C] of references by which the event log has rows' slots, for the log to write to.

        It holds 0 for a row that was written to since.
        """
        return self._tables.by_model[id(model)].slot_table.log_reference_C

    def ids(self, rows: Rows) -> list[str]:
        """Return the ids of the items in rows [N] that are in use."""
        return [self._rows.ids[row] or "" for row in rows.tolist()]

    @property
    def versions(self) -> int:
        """How many versions are attached."""
        return len(self._tables.by_model)

    def stale(self) -> list[str]:
        """Return the ids of cached items that are not fresh."""
        ids = self._rows.ids
        return [item_id for row in self._flags.not_fresh(len(ids)) if (item_id := ids[row]) is not None]

    def is_stale(self, item_id: str) -> bool:
        """Return whether an item is cached and not fresh."""
        row = self._rows.index.get(item_id)
        return row is not None and not self._flags.is_fresh(row)

    def next_fresh(self, count: int) -> list[str]:
        """Return the ids of the next `count` fresh items, or fewer; call by call it goes round through all rows."""
        ids: list[str] = []
        for _ in range(min(count, len(self._rows.ids))):
            row = self._next_row = (self._next_row + 1) % len(self._rows.ids)
            if self._flags.is_fresh(row) and (item_id := self._rows.ids[row]) is not None:
                ids.append(item_id)
        return ids

    def expire(self, age_s: float) -> None:
        """Let items that were read longer ago than `age_s` be stale."""
        self._flags.set_stale(self._ages.older(len(self._rows.ids), age_s))

    def missed_reports(self) -> bool:
        """Return whether a fresh item has changed, and the store did not report it."""
        return self._ages.unreported()

    def forget_changes(self) -> None:
        """Expect no reports of the changes found so far: the store makes none."""
        self._ages.on_reported(None)

    # Listener of a FeatureStore

    def on_items(
        self, item_ids: Sequence[str], items: Sequence[RawFeatures], hash_slots: Sequence[int] | None = None
    ) -> None:
        """Encode items just read, for every schema and every attached version, unless they are as they were.

        An item without a row, for which none can be evicted (`ItemRows.assign`), is not cached.
        """
        self.before_change()
        rows, evicted = self._rows.assign(item_ids, [bool(item) for item in items])
        if hash_slots is not None:
            self._hash_slots.set(rows, hash_slots)
        if evicted:
            self._flags.clear(evicted)
            self._tables.clear(evicted)
            self.counts.evictions += len(evicted)
        if (rows == ABSENT).any():
            assigned = np.flatnonzero(rows != ABSENT).tolist()
            rows, item_ids, items = rows[assigned], [item_ids[i] for i in assigned], [items[i] for i in assigned]
        if not len(rows):
            return
        digests_N, flags_N = digest(items), self._flags.of(rows)
        unchanged_N = self._ages.same(rows, digests_N)
        self._ages.set(rows, digests_N)
        # What is read again because reports may be missed.
        self._ages.on_changed(item_ids[i] for i in np.flatnonzero((flags_N & FRESH != 0) & ~unchanged_N).tolist())
        # Of a row that was another item's no table is filled, nor is that of a schema under which it was not read yet.
        # A value that fits no slot may fit one under the versions of today, and is counted once more.
        kept_N = unchanged_N & self._tables.filled(rows) & (flags_N & (FRESH | VALID) != 0)
        self._flags.confirm(rows[kept_N])
        if kept_N.any():  # after a lost connection all are read again, and few have changed
            written = np.flatnonzero(~kept_N).tolist()
            rows, item_ids, items = rows[written], [item_ids[i] for i in written], [items[i] for i in written]
        if items:
            self._flags.set_stale(rows)  # until all is written
            valid = self._tables.write(rows, item_ids, items, self.counts.count_invalid)
            self._flags.on_read(rows, [bool(item) for item in items], valid)

    def on_invalidate(self, item_ids: Sequence[str] | None) -> None:
        """Keep items that were written as stale ones until they are read again; None invalidates all."""
        if item_ids is None:
            self.on_disconnect()
            return
        self._ages.on_reported(item_ids)
        row_of = {item_id: row for item_id in item_ids if (row := self._rows.index.get(item_id)) is not None}
        if row_of:
            self.counts.invalidations += len(row_of)
            self._flags.set_stale(list(row_of.values()))
            self.on_written(list(row_of))

    def on_hash_slots_lost(self, hash_slots: Sequence[int]) -> None:
        """Keep the items of these hash slots as stale ones until they are read again."""
        self._ages.on_reported(None)
        rows = self._hash_slots.rows(hash_slots, len(self._rows.ids))
        self.counts.invalidations += len(rows)
        self._flags.doubt(rows)

    def on_disconnect(self) -> None:
        """Keep all items as stale ones until they are read again."""
        self._ages.on_reported(None)
        self.counts.invalidations += len(self._rows.index)
        self._flags.doubt(slice(len(self._rows.ids)))

    # Live versions

    async def attach(self, model: ItemModel, worked_s: Callable[[], float] = time.thread_time) -> list[str]:
        """Compute a new version's states for all cached items, in the time that requests leave.

        Items cached meanwhile are encoded for the version as they come.

        Args:
            worked_s: as for `LoopPacer`.

        Returns:
            Ids whose slots under the model's schema are not known, because the schema is new. They hold what an
            unknown item holds, and are stale, until they are read.
        """
        if id(model) in self._tables.by_model:
            return []
        state_table = self._tables.attach(model)
        pacer = LoopPacer(worked_s)
        unknown: list[str] = []
        for start in range(0, len(self._rows.ids), ENCODE_CHUNK):
            stop = min(start + ENCODE_CHUNK, len(self._rows.ids))
            unknown += self._fill_defaults(state_table.slot_table, start, stop)
            with torch.inference_mode():
                state_table.encode_range(start, stop)
            await pacer.throttle()
        state_table.is_filled = True
        return unknown

    def detach(self, model: ItemModel) -> None:
        """Forget a version's states, and its schema's slots unless another version shares them."""
        self.before_change()
        self._tables.detach(model)

    def _fill_defaults(self, slot_table: SlotTable, start: int, stop: int) -> list[str]:
        """Give cached items that were not read under a new schema the slots of unknown items; returns their ids."""
        unread = [row for row in range(start, stop) if self._rows.ids[row] is not None and not slot_table.filled_C[row]]
        ids = [item_id for row in unread if (item_id := self._rows.ids[row]) is not None]
        if ids:
            self.before_change()
            slot_table.write(unread, ids, [{}] * len(ids))
            self._flags.set_stale(unread)
        return ids
