"""The tables behind the item cache: encoded slots of every row for each schema, item states for each live version.

A new version's states are computed from the slots, without reading the store again. The tables have as many rows as
the cache has capacity from the start, but the kernel backs only the pages that rows have been written to. A row takes
12 bytes a slot, and 4 bytes (2 in bf16) a column of the item state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.features.encoder import Encoder
from app.features.item_index import Rows
from app.features.slots import Slots
from app.features.store import RawFeatures
from app.runtime.huge_pages import zeros_on_huge_pages

STATE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""By the values of CTR_PRECISION."""


class ItemModel(Protocol):
    """The part of a version that the tables need; `app.registry.artifact.artifact.Artifact` implements it."""

    item_encoder: Encoder

    @property
    def schema_hash(self) -> str:
        """The hash of the schema that items are encoded by."""

    def encode_items(self, slots: Slots) -> Tensor:
        """Turn slots [N, S] into item states [N, D]."""


@dataclass
class SlotTable:
    """Encoded slots of every row under one schema."""

    encoder: Encoder
    keys_CS: npt.NDArray[np.int64]
    values_CS: npt.NDArray[np.float32]
    filled_C: npt.NDArray[np.bool_]
    """Rows whose item was read since this schema came into use."""
    log_reference_C: npt.NDArray[np.int64]
    """By which number the event log refers to a row's slots; 0 after the row was written to."""

    def slots(self, rows: Rows) -> Slots:
        """Return copies of the slots [N, S] of N rows."""
        return Slots(self.keys_CS[rows], self.values_CS[rows])

    def write(
        self,
        rows: Rows | Sequence[int],
        item_ids: Sequence[str],
        items: Sequence[RawFeatures],
        on_invalid: Callable[[str], None] | None = None,
    ) -> None:
        """Encode N items into N rows; `on_invalid` as for `Encoder.encode_many`."""
        self.keys_CS[rows], self.values_CS[rows] = self.encoder.encode_many(items, item_ids, on_invalid)
        self.log_reference_C[rows] = 0


@dataclass
class StateTable:
    """Item states of every row under one version."""

    model: ItemModel
    slot_table: SlotTable
    states_CD: Tensor
    is_filled: bool = False
    """Whether the items that were cached when the version came have their states."""

    def encode(self, rows: Rows) -> None:
        """Compute the states of N rows from their slots."""
        encoded_ND = self.model.encode_items(self.slot_table.slots(rows))
        index_N = torch.from_numpy(rows).to(self.states_CD.device)
        self.states_CD.index_copy_(0, index_N, encoded_ND.to(self.states_CD.device, self.states_CD.dtype))

    def encode_range(self, start: int, stop: int) -> None:
        """Compute the states of a range of rows, which saves gathering their slots: half of the time."""
        chunk = Slots(self.slot_table.keys_CS[start:stop], self.slot_table.values_CS[start:stop])
        encoded_ND = self.model.encode_items(chunk)
        self.states_CD[start:stop] = encoded_ND.to(self.states_CD.device, self.states_CD.dtype)


class ItemTables:
    """A `SlotTable` for each schema in use, and a `StateTable` for each attached version."""

    def __init__(self, capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        """
        Args:
            capacity: rows of each table.
            device, dtype: where the item states are, and their precision.
        """
        self._capacity = capacity
        self._device = device
        self._dtype = dtype
        self._by_schema: dict[str, SlotTable] = {}
        self.by_model: dict[int, StateTable] = {}
        """The attached versions' tables, by the `id` of the model."""

    def attach(self, model: ItemModel) -> StateTable:
        """Add a table for a version, and one for its schema unless another version shares it; all rows are zeros."""
        slot_table = self._by_schema.get(model.schema_hash)
        if slot_table is None:
            shape = self._capacity, model.item_encoder.width
            slot_table = self._by_schema[model.schema_hash] = SlotTable(
                model.item_encoder,
                zeros_on_huge_pages(shape, np.int64),
                zeros_on_huge_pages(shape, np.float32),
                np.zeros(self._capacity, np.bool_),
                np.zeros(self._capacity, np.int64),
            )
        width = model.encode_items(slot_table.slots(np.arange(1))).shape[1]
        state_table = self.by_model[id(model)] = StateTable(model, slot_table, self._zero_states(width))
        return state_table

    def detach(self, model: ItemModel) -> None:
        """Drop a version's states, and its schema's slots unless another version shares them."""
        self.by_model.pop(id(model), None)
        used = {state_table.model.schema_hash for state_table in self.by_model.values()}
        for schema_hash in self._by_schema.keys() - used:
            del self._by_schema[schema_hash]

    def write(
        self, rows: Rows, item_ids: Sequence[str], items: Sequence[RawFeatures], on_invalid: Callable[[str], None]
    ) -> list[bool]:
        """Encode N items into N rows, for every schema and every version.

        Args:
            on_invalid: called with the field's name for each value that fits no slot; the field counts as missing.

        Returns:
            For each item whether all of its values fit.
        """
        valid = [True] * len(items)
        self.clear(rows)  # until all is computed
        for slot_table in self._by_schema.values():
            invalid: list[str] = []
            slot_table.write(rows, item_ids, items, invalid.append)
            if invalid:  # whose they are only `encode` tells
                for index, (item_id, item) in enumerate(zip(item_ids, items, strict=True)):
                    invalid.clear()
                    slot_table.encoder.encode(item, item_id, invalid.append)
                    valid[index] &= not invalid
                    for field in invalid:
                        on_invalid(field)
        for state_table in self.by_model.values():
            state_table.encode(rows)
        for slot_table in self._by_schema.values():
            slot_table.filled_C[rows] = True
        return valid

    def filled(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Return for N rows whether their items were read under every schema in use."""
        filled_N = np.ones(len(rows), np.bool_)
        for slot_table in self._by_schema.values():
            filled_N &= slot_table.filled_C[rows]
        return filled_N

    def clear(self, rows: Rows | Sequence[int]) -> None:
        """Mark the items of these rows as not read."""
        for slot_table in self._by_schema.values():
            slot_table.filled_C[rows] = False

    def _zero_states(self, width: int) -> Tensor:
        if self._device.type != "cpu":
            return torch.empty((self._capacity, width), dtype=self._dtype, device=self._device)
        raw = zeros_on_huge_pages((self._capacity, width * self._dtype.itemsize), np.uint8)
        return torch.from_numpy(raw).view(self._dtype)
