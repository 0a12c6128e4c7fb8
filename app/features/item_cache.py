"""Items of the catalogue, encoded once and kept in the process; rows are gathered per request.

An item is a row number. For each schema in use the cache keeps the row's encoded slots, and for each live version the
row's item state; a new version's states are computed from the slots, without reading the store again. Memory for a
row: 12 bytes a slot, 4 bytes (2 in bf16) a column of the item state, and about 180 for its id. The tensors are as large
as the capacity from the start, but the kernel backs only the pages that rows have been written to.

All methods run on the event loop's thread, so none of them sees another half done. Between them, while a request awaits
something, any row may be evicted and given to another item, unless the request has pinned it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.features.encoder import Encoder
from app.features.item_index import ABSENT, ItemIndex, Rows
from app.features.slots import Slots
from app.features.store import RawFeatures
from app.native import bindings, layout
from app.runtime.huge_pages import zeros_on_huge_pages
from app.runtime.loop_pacer import LoopPacer

FRESH, KNOWN = 1, 2
DISTINCT = layout.ALL_DISTINCT
"""Beside the flags in what `mark_used` returns."""
EVICT_SHARE = 16
ENCODE_CHUNK = 128
"""Rows encoded at a time for a new version: about half a millisecond beside requests; shorter slices cost more."""


class ItemModel(Protocol):
    """What the cache needs of a live version (`app.registry.artifact.artifact.Artifact` is one)."""

    item_encoder: Encoder

    @property
    def schema_hash(self) -> str: ...

    def encode_items(self, slots: Slots) -> Tensor: ...


class CacheLookup(NamedTuple):
    """Where N ids are."""

    rows: Rows
    """[N], ABSENT where the cache has none."""
    flags_all: int
    """The flags that all of them have."""
    distinct: bool
    """No row comes twice; False too where several ids are ABSENT."""


@dataclass
class CacheCounts:
    """Running totals for the metrics."""

    hits: int = 0
    misses: int = 0
    invalidations: int = 0
    evictions: int = 0
    invalid_values: int = 0


@dataclass
class _SlotTable:
    """Encoded slots of every row under one schema."""

    encoder: Encoder
    keys_CS: npt.NDArray[np.int64]
    values_CS: npt.NDArray[np.float32]
    filled_C: npt.NDArray[np.bool_]
    """Rows that were fetched since this schema came into use."""

    def slots(self, rows: Rows) -> Slots:
        return Slots(self.keys_CS[rows], self.values_CS[rows])


@dataclass
class _States:
    model: ItemModel
    table: _SlotTable
    states_CD: Tensor


class ItemCache:
    """Bounded; the least recently used items are dropped, a sixteenth of the capacity at a time."""

    def __init__(
        self, capacity: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.capacity = capacity
        self.counts = CacheCounts()
        self._device = torch.device(device)
        self.dtype = dtype
        """Of the item states."""
        self._rows = ItemIndex()
        self._ids: list[str | None] = []
        self._free: list[int] = []
        # One row more than there are items: ABSENT, -1, finds it, and it is nobody's.
        self._flags_C = zeros_on_huge_pages((capacity + 1,), np.uint8)
        self._used_C = zeros_on_huge_pages((capacity + 1,), np.int64)
        self._flags: int = self._flags_C.ctypes.data
        self._used: int = self._used_C.ctypes.data
        self._clock = 0
        self._pinned: dict[int, Rows] = {}
        """Rows of requests that await something, by the identity of their array."""
        self._tables: dict[str, _SlotTable] = {}
        self._states: dict[int, _States] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._rows

    def find(self, item_ids: Sequence[str]) -> CacheLookup:
        """Look N ids up, and count them as used now."""
        rows = self._rows.find(item_ids)
        count = len(rows)
        # Each use has a number of its own, so of a row that comes twice one number is overwritten.
        common = bindings.mark_used(rows.ctypes.data, count, self._flags, self._used, self.capacity, self._clock)
        self._clock += count
        return CacheLookup(rows, common & ~DISTINCT, bool(common & DISTINCT))

    def pin(self, rows: Rows) -> None:
        """Keep these rows from being evicted until `unpin` is called with the same array; ABSENT is passed over."""
        self._pinned[id(rows)] = rows

    def unpin(self, rows: Rows) -> None:
        """Let these rows, which `pin` was called with, be evicted again."""
        del self._pinned[id(rows)]

    def flags(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """What is known of each row [N]; nothing where it is ABSENT."""
        return self._flags_C.take(rows)

    def states(self, model: ItemModel) -> Tensor:
        """Item states of an attached model, [capacity, D]; only rows that were found are meaningful."""
        return self._states[id(model)].states_CD

    def attached(self, model: ItemModel) -> bool:
        """Whether the cache keeps item states of this model."""
        return id(model) in self._states

    def slots(self, model: ItemModel, rows: Rows) -> Slots:
        """Encoded slots [N, S] of rows, under the model's schema."""
        return self._states[id(model)].table.slots(rows)

    def stale(self) -> list[str]:
        """Cached ids that are not fresh."""
        rows = np.flatnonzero((self._flags_C[: len(self._ids)] & FRESH) == 0).tolist()
        return [item_id for row in rows if (item_id := self._ids[row]) is not None]

    def count_invalid(self, field: str) -> None:
        """Count a stored value that fits no slot."""
        self.counts.invalid_values += 1

    # Listener of a FeatureStore

    def on_items(self, item_ids: Sequence[str], raws: Sequence[RawFeatures]) -> None:
        """Take in items just read: give them rows, encode them for every schema and every live version.

        Items without a row, for which none can be evicted because all are pinned, are not cached.
        """
        rows = self._rows_for(item_ids)
        if (rows == ABSENT).any():
            cached = np.flatnonzero(rows != ABSENT).tolist()
            rows, item_ids, raws = rows[cached], [item_ids[i] for i in cached], [raws[i] for i in cached]
        if not len(rows):
            return
        for table in self._tables.values():
            self._fill(table, rows, raws, item_ids)
        for states in self._states.values():
            self._encode(states, rows)
        self._flags_C[rows] = [FRESH | KNOWN if raw else FRESH for raw in raws]

    def on_invalidate(self, item_ids: Sequence[str] | None) -> None:
        """Those items were written since they were read: keep them as stale until they are read again."""
        if item_ids is None:
            self.on_disconnect()
            return
        rows = [row for item_id in item_ids if (row := self._rows.get(item_id)) is not None]
        if rows:
            self.counts.invalidations += len(rows)
            self._flags_C[rows] &= ~np.uint8(FRESH)

    def on_disconnect(self) -> None:
        """Changes may have been missed: nothing is fresh until it is read again."""
        self.counts.invalidations += len(self._rows)
        self._flags_C[: len(self._ids)] &= ~np.uint8(FRESH)

    # Live versions

    async def attach(self, model: ItemModel, worked_s: Callable[[], float] = time.thread_time) -> list[str]:
        """Compute a new version's states for all cached items, in the time that requests leave.

        Args:
            worked_s: as of `LoopPacer`.

        Returns:
            Ids whose slots under the model's schema are not known, because the schema is new. They hold what an
            unknown item holds, and are stale, until they are fetched.
        """
        if id(model) in self._states:
            return []
        table = self._tables.get(model.schema_hash)
        if table is None:
            slots = model.item_encoder.slots
            table = self._tables[model.schema_hash] = _SlotTable(
                model.item_encoder,
                zeros_on_huge_pages((self.capacity, slots), np.int64),
                zeros_on_huge_pages((self.capacity, slots), np.float32),
                np.zeros(self.capacity, np.bool_),
            )
        one = model.encode_items(
            Slots(np.zeros((1, table.encoder.slots), np.int64), np.zeros((1, table.encoder.slots), np.float32))
        )
        states = _States(model, table, self._table(one.shape[1]))
        self._states[id(model)] = states
        pacer = LoopPacer(worked_s)
        unknown: list[str] = []
        for start in range(0, len(self._ids), ENCODE_CHUNK):
            stop = min(start + ENCODE_CHUNK, len(self._ids))
            unknown += self._default(table, np.arange(start, stop))
            # Rows in their order need not be gathered, which takes as long again.
            chunk = Slots(table.keys_CS[start:stop], table.values_CS[start:stop])
            with torch.inference_mode():
                states.states_CD[start:stop] = model.encode_items(chunk).to(self._device, self.dtype)
            await pacer.throttle()
        return unknown

    def detach(self, model: ItemModel) -> None:
        """Forget a version's states, and its schema's slots unless another version shares them."""
        self._states.pop(id(model), None)
        used = {states.model.schema_hash for states in self._states.values()}
        for schema_hash in self._tables.keys() - used:
            del self._tables[schema_hash]

    # Inside

    def _table(self, width: int) -> Tensor:
        if self._device.type != "cpu":
            return torch.empty((self.capacity, width), dtype=self.dtype, device=self._device)
        return torch.from_numpy(zeros_on_huge_pages((self.capacity, width * self.dtype.itemsize), np.uint8)).view(
            self.dtype
        )

    def _default(self, table: _SlotTable, rows: Rows) -> list[str]:
        """Give rows without slots in this table those of an unknown item; the ids among them that are in use."""
        empty = rows[~table.filled_C[rows]]
        ids = [self._ids[row] for row in empty.tolist()]
        if ids:
            table.keys_CS[empty], table.values_CS[empty] = table.encoder.encode_many([{}] * len(ids), ids)
            self._flags_C[empty] &= ~np.uint8(FRESH)
        return [item_id for item_id in ids if item_id is not None]

    def _fill(self, table: _SlotTable, rows: Rows, raws: Sequence[RawFeatures], item_ids: Sequence[str]) -> None:
        slots = table.encoder.encode_many(raws, item_ids, self.count_invalid)
        table.keys_CS[rows], table.values_CS[rows] = slots
        table.filled_C[rows] = True

    def _encode(self, states: _States, rows: Rows) -> None:
        if len(rows):
            encoded_ND = states.model.encode_items(states.table.slots(rows))
            index_N = torch.from_numpy(rows).to(self._device)
            states.states_CD.index_copy_(0, index_N, encoded_ND.to(self._device, self.dtype))

    def _rows_for(self, item_ids: Sequence[str]) -> Rows:
        """Rows of these ids: new ones where they had none, ABSENT where none can be evicted for them."""
        cached = [row for item_id in item_ids if (row := self._rows.get(item_id)) is not None]
        available = self.capacity - len(self._rows)
        needed = len(item_ids) - len(cached) - available
        if needed > 0:
            available += self._evict(needed, keep=cached)
        rows = np.full(len(item_ids), ABSENT)
        for position, item_id in enumerate(item_ids):
            row = self._rows.get(item_id)
            if row is None:
                if not available:
                    continue
                available -= 1
                if self._free:
                    row = self._free.pop()
                    self._ids[row] = item_id
                else:
                    row = len(self._ids)
                    self._ids.append(item_id)
                self._rows.insert(item_id, row)
            rows[position] = row
        self._used_C[rows] = self._clock
        return rows

    def _evict(self, needed: int, keep: Sequence[int]) -> int:
        """Evict the least recently used rows that are neither pinned nor among `keep`; returns how many."""
        # One more than there are rows: ABSENT, -1, marks the last.
        held = np.zeros(len(self._ids) + 1, np.bool_)
        held[[*keep, *self._free]] = True
        for rows in self._pinned.values():
            held[rows] = True
        evictable = len(self._ids) - int(np.count_nonzero(held[:-1]))
        count = min(max(needed, self.capacity // EVICT_SHARE), evictable)
        if not count:
            return 0
        last_used = self._used_C[: len(self._ids)].copy()
        last_used[held[:-1]] = np.iinfo(np.int64).max
        for row in np.argpartition(last_used, count - 1)[:count].tolist():
            item_id = self._ids[row]
            if item_id is not None:
                self._rows.remove(item_id)
            self._ids[row] = None
            self._flags_C[row] = 0
            for table in self._tables.values():
                table.filled_C[row] = False
            self._free.append(row)
        self.counts.evictions += count
        return count
