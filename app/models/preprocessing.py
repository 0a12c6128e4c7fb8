"""The vocabulary and statistics learned on the training rows before the first gradient, and the table rows they take.

Rows of the embedding table: one out-of-vocabulary row per categorical field, then one row per vocabulary key (the fixed
keys of numeric fields are among them), then the bucket rows of numeric fields, the first of each for "missing", then a
row for each number of a target statistic, user side first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from app.features.fields import SIDES, Numeric, Side
from app.features.schema import FeatureSchema
from app.features.slot_layout import SlotLayout, bucket_name, vectors_of
from app.features.slots import NUMERIC_MARK, slot_key
from app.models.target_statistics import KeyStatistics, Scope


@dataclass(frozen=True)
class NumericStatistics:
    """Statistics of one numeric field, learned on the training rows."""

    mean: float = 0.0
    deviation: float = 1.0
    """Deviation, as `mean`, of the values that reach the `standardise` transform."""
    borders: tuple[float, ...] = ()
    """Ascending quantile borders of the raw values; at most `buckets - 1` of them."""


@dataclass(frozen=True)
class Preprocessing:
    """All that is learned before the first gradient, fitted once on the training rows."""

    schema: FeatureSchema
    vocabulary_V: Tensor
    """Sorted distinct int64 keys, the fixed keys of all numeric fields included."""
    numerics: dict[str, NumericStatistics]
    statistics: Mapping[Scope, KeyStatistics] = field(default_factory=dict)
    """Target statistics by where their fields are; empty without any."""

    @property
    def oov_rows(self) -> int:
        """Number of out-of-vocabulary rows, which are the first of the embedding table."""
        return sum(not isinstance(f, Numeric) for f in self.schema.fields)

    @property
    def rows(self) -> int:
        """R, the number of rows of the embedding table."""
        return self.statistic_rows("item").stop

    def target_statistics(self, scope: Scope) -> KeyStatistics:
        """Return the target statistics whose fields are there."""
        return self.statistics.get(scope, KeyStatistics())

    @property
    def statistic_pairs(self) -> tuple[tuple[str, str], ...]:
        """Return the fields of every target statistic."""
        return tuple(pair for statistics in self.statistics.values() for pair in statistics.pairs)

    def layout(self, side: Side) -> SlotLayout:
        """Return the slots and field vectors of one side, those of its target statistics included."""
        return SlotLayout(side, self.schema.side(side), self.target_statistics(side).vectors)

    @cached_property
    def vectors(self) -> Mapping[str, slice]:
        """Slots of each field vector among the T of both sides, user side first, in the order of the F vectors."""
        return vectors_of(*(self.layout(side) for side in SIDES))

    def oov_row(self, name: str) -> int:
        """Return the row that unseen keys of this categorical field share."""
        names = [f.name for f in self.schema.fields if not isinstance(f, Numeric)]
        return names.index(name)

    def number_row(self, side: Side, name: str) -> int:
        """Return the row of a numeric field, or of a number of a target statistic, of this side."""
        vectors = self.target_statistics(side).vectors
        if name in vectors:
            return self.statistic_rows(side)[vectors.index(name)]
        return self.oov_rows + int(np.searchsorted(self.vocabulary_V.numpy(), numeric_key(name)))

    def statistic_slots(self, scope: Scope) -> list[tuple[int, int]]:
        """Return the slots of both fields of each target statistic, each among the T of its side.

        A number takes part by its bucket.
        """
        left, right = (self.layout(side).vectors for side in (SIDES if scope == "across" else (scope, scope)))
        return [
            (left.get(bucket_name(f), left[f]).start, right.get(bucket_name(g), right[g]).start)
            for f, g in self.target_statistics(scope).pairs
        ]

    def statistic_rows(self, side: Side) -> range:
        """Return the rows of the numbers of a side's target statistics, in their order."""
        start = self.bucket_row(None) if side == "user" else self.statistic_rows("user").stop
        return range(start, start + len(self.target_statistics(side).vectors))

    def bucket_row(self, name: str | None) -> int:
        """Return the first bucket row of a numeric field or, for None, one past the last bucket row."""
        row = self.oov_rows + len(self.vocabulary_V)
        for f in self.schema.fields:
            if f.name == name:
                break
            if isinstance(f, Numeric) and f.buckets:
                row += len(self.numerics[f.name].borders) + 2
        return row


def numeric_key(name: str) -> int:
    """Return the fixed key of a numeric field, as the encoder writes it."""
    return slot_key(name + NUMERIC_MARK)
