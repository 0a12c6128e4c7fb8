"""What users, items and fields take of the store's and of the workers' memory, by constants that were measured.

`python -m benchmarks.sizes` measures the constants again; docs/scaling.md has them with what they are good for, and
`tests/features/loading/test_sizes.py` holds them against a real server and a real item cache. All were measured on
2026-11-29: Valkey 9.1.2 with the allocator of libc, Python 3.11, two cores of an AMD EPYC, shared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PACKED_VALUE_BYTES = 64
"""The longest value of a hash that is a listpack (`hash-max-listpack-value`)."""
PACKED_FIELDS = 512
"""The most fields of such a hash, unless the server is configured otherwise (`hash-max-listpack-entries`)."""

HASH_BYTES = 54
"""Of a hash that is a listpack, beside its key, names and values: the key's entry, the object, the allocations."""
PACKED_FIELD_BYTES = 4
"""Of a field in a listpack, beside its name and its value."""
TABLE_HASH_BYTES = 130
"""Of a hash that is a table, beside its key and its entries."""
TABLE_FIELD_BYTES = 16
"""Of a field in a table, beside its entry: its place among the buckets, which double as they fill."""
TABLE_ENTRY_BYTES = 4
"""Of an entry, beside its name and its value. Entries take 24, 40, 56 ... bytes."""

PACKED_READ_US = (1.5, 0.06, 0.0037)
"""Microseconds of the server for the HMGET of n fields of a listpack, c0 + c1 n + c2 n**2."""
TABLE_READ_US = (1.7, 0.07, 0.0)
"""The same of a table."""

ITEM_BYTES = 210
"""Of a cached item in a worker, beside its slots and its state: its id, index, flags and times."""
SLOT_BYTES = 12
"""Of a slot of a cached item: a key of 8 bytes and a number of 4."""
KEY_BYTES = 8
"""Of a key in a version's vocabulary."""
SERVICE_BYTES = 240 << 20
"""Of the supervisor, the fork server and the libraries that all workers share."""
WORKER_BYTES = 35 << 20
"""Of each worker by itself, before it has cached or answered anything."""


@dataclass(frozen=True)
class HashShape:
    """The form of an entity's hash: how many fields, how many of them are lists, and how long names and values are."""

    fields: int
    lists: int = 0
    values: int = 5
    """Values in a list."""
    name_bytes: int = 10
    value_bytes: int = 6
    key_bytes: int = 20
    """The whole key: `ctr:v1:user:1234567`."""

    @property
    def list_bytes(self) -> int:
        """Bytes of a list as JSON: brackets, quotes, commas."""
        return 1 + self.values * (self.value_bytes + 3)

    def is_packed(self, entries: int = PACKED_FIELDS) -> bool:
        """Return whether a server with this `hash-max-listpack-entries` keeps such a hash as a listpack."""
        longest = max(self.value_bytes if self.lists < self.fields else 0, self.list_bytes if self.lists else 0)
        return self.fields <= entries and longest <= PACKED_VALUE_BYTES

    def bytes(self, entries: int = PACKED_FIELDS) -> int:
        """Return what a hash takes of the server's memory, its key included."""
        singles = self.fields - self.lists
        if self.is_packed(entries):
            values = singles * self.value_bytes + self.lists * self.list_bytes
            return HASH_BYTES + self.key_bytes + values + self.fields * (self.name_bytes + PACKED_FIELD_BYTES)
        entry = singles * self._entry(self.value_bytes) + self.lists * self._entry(self.list_bytes)
        return TABLE_HASH_BYTES + self.key_bytes + entry + self.fields * TABLE_FIELD_BYTES

    def read_us(self, entries: int = PACKED_FIELDS) -> float:
        """Return microseconds of the server for an HMGET of all fields, without receiving and sending it."""
        constant, linear, square = PACKED_READ_US if self.is_packed(entries) else TABLE_READ_US
        return constant + linear * self.fields + square * self.fields**2

    def _entry(self, value_bytes: int) -> int:
        return 24 + 16 * max(0, math.ceil((self.name_bytes + value_bytes + TABLE_ENTRY_BYTES - 24) / 16))


@dataclass(frozen=True)
class WorkerShape:
    """The form of what workers hold: cached items, and a version's tables."""

    items: int
    """Items that are cached."""
    slots: int
    """Slots of an item, its id's included."""
    state_width: int
    """Columns of an item state; the model says how many (docs/models.md)."""
    state_bytes: int
    """Bytes of a column: 4, or 2 with `CTR_PRECISION=bf16`."""
    keys: int
    """Keys in the vocabulary, of which each has a row of the table."""
    dim: int
    """Embedding size: a row has a column more."""

    @property
    def item_bytes(self) -> int:
        """Bytes of a cached item in each worker."""
        return ITEM_BYTES + self.slots * SLOT_BYTES + self.state_width * self.state_bytes

    @property
    def state_item_bytes(self) -> int:
        """Bytes of an item's state alone, which there are two of while a version is swapped in."""
        return self.state_width * self.state_bytes

    @property
    def table_bytes(self) -> int:
        """Bytes of a version's table and vocabulary, which the workers of a machine share."""
        return self.keys * (4 * (1 + self.dim) + KEY_BYTES)

    def machine_bytes(self, workers: int, *, swapping: bool = False) -> int:
        """Return what the service takes on a machine, at rest or while a version of the same size is swapped in."""
        cached = self.items * (self.item_bytes + (self.state_item_bytes if swapping else 0))
        return SERVICE_BYTES + workers * (WORKER_BYTES + cached) + self.table_bytes * (2 if swapping else 1)
