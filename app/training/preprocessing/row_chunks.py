"""Rows of arrays that are larger than memory, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator

from app.features.slots import Slots

CHUNK_ROWS = 65_536


def slot_chunks(slots: Slots, rows: slice) -> Iterator[Slots]:
    """Yield the slots of these rows, at most `CHUNK_ROWS` rows at a time."""
    for chunk in row_chunks(rows):
        yield Slots(slots.keys[chunk], slots.values[chunk])


def row_chunks(rows: slice) -> Iterator[slice]:
    """Yield consecutive slices of at most `CHUNK_ROWS` rows that make up this one."""
    for start in range(rows.start, rows.stop, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, rows.stop))
