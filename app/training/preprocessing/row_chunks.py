"""Go over rows of arrays that are larger than memory, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator


def row_chunks(rows: slice, size: int) -> Iterator[slice]:
    """Yield consecutive slices of at most `size` rows that make up this one."""
    for start in range(rows.start, rows.stop, size):
        yield slice(start, min(start + size, rows.stop))
