"""The vocabulary and statistics learned on the training rows before the first gradient, and the table rows they take.

Rows of the embedding table: one out-of-vocabulary row per categorical field, then one row per vocabulary key (the fixed
keys of numeric fields are among them), then the bucket rows of numeric fields, the first of each for "missing".
"""

from dataclasses import dataclass

from torch import Tensor

from app.features.fields import Numeric
from app.features.schema import FeatureSchema
from app.features.slots import NUMERIC_MARK, slot_key


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

    @property
    def oov_rows(self) -> int:
        """Number of out-of-vocabulary rows, which are the first of the embedding table."""
        return sum(not isinstance(field, Numeric) for field in self.schema.fields)

    @property
    def rows(self) -> int:
        """R, the number of rows of the embedding table."""
        return self.bucket_row(None)

    def oov_row(self, name: str) -> int:
        """Return the row that unseen keys of this categorical field share."""
        names = [field.name for field in self.schema.fields if not isinstance(field, Numeric)]
        return names.index(name)

    def bucket_row(self, name: str | None) -> int:
        """Return the first bucket row of a numeric field or, for None, one past the last row."""
        row = self.oov_rows + len(self.vocabulary_V)
        for field in self.schema.fields:
            if field.name == name:
                break
            if isinstance(field, Numeric) and field.buckets:
                row += len(self.numerics[field.name].borders) + 2
        return row


def numeric_key(name: str) -> int:
    """Return the fixed key of a numeric field, as the encoder writes it."""
    return slot_key(name + NUMERIC_MARK)
