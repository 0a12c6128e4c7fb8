"""`CacheCounts`: what an item cache has counted, for the metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class CacheCounts:
    """Running totals for the metrics."""

    hits: int = 0
    misses: int = 0
    invalidations: int = 0
    evictions: int = 0
    invalid_values: Counter[str] = field(default_factory=Counter)
    """By field."""

    def count_invalid(self, field: str) -> None:
        """Count a stored value of an item that fits no slot."""
        self.invalid_values[field] += 1
