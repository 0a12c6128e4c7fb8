"""Bound the memory that reading, encoding and preparing a dataset takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncodingLimits:
    """Holds the limits of one dataset. The defaults are what `ctr train` uses; tests pass small values."""

    in_memory_bytes: int = 64 << 20
    """A file up to this size is read whole; as frames it takes several times as much memory."""
    block_bytes: int = 4 << 20
    """Text is parsed in blocks of this size. As frames, keys and values a block takes some 15 times as much; smaller
    blocks are slower, by a fifth at half of this size."""
    parquet_rows: int = 65_536
    """Parquet is read in chunks of this many rows."""
    history_rows: int = 250_000
    """Formats that look at earlier events compute the features of this many events at a time, or of all events of one
    user if they are more."""
    chunk_rows: int = 65_536
    """Encoded rows are gathered, counted and expanded in chunks of this many."""
    heap_array_bytes: int = 256 << 20
    """A larger array goes to an unlinked file, whose pages the system drops and reads again as memory gets short."""
    copy_bytes: int = 1 << 20
    """Shards are copied together in ranges that begin at multiples of it: no two processes write to one page."""


DEFAULT_LIMITS = EncodingLimits()
