"""`CacheCounts`: what an item cache has counted, for the metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CacheCounts:
    """Running totals for the metrics."""

    hits: int = 0
    misses: int = 0
    invalidations: int = 0
    evictions: int = 0
    invalid_values: int = 0
