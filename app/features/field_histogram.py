"""`FieldHistogram` says how the values of a field were spread in training, and `SideBins` counts others in its bins."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from app.features.fields import Categorical, MultiCategorical, Numeric, Side
from app.features.schema import FeatureSchema
from app.features.slots import EMPTY_KEY, MISSING_MARK, Slots, slot_key

MAX_BINS = 20

Counts = npt.NDArray[np.int64]


class FieldHistogram(msgspec.Struct, frozen=True):
    """The shares of a field's values, most of them by bins of their own."""

    shares: tuple[float, ...]
    """Of each bin, in [0, 1]; the last is that of missing values."""
    keys: tuple[int, ...] = ()
    """Of categories, ascending: those of all bins but the last two, of which the first is for all other categories."""
    borders: tuple[float, ...] = ()
    """Of numbers, ascending: those above the first border and at most the second are in the second bin."""

    @property
    def missing(self) -> float:
        return self.shares[-1]


class FieldBins:
    """The bins of one field."""

    def __init__(
        self, field: Categorical | MultiCategorical | Numeric, slots: slice, keys: npt.ArrayLike, borders: npt.ArrayLike
    ) -> None:
        """
        Args:
            slots: those of the field among its side's S.
            keys: ascending; of numbers they are not looked at.
            borders: ascending; of categories they are not looked at.
        """
        self.name = field.name
        self._slots = slots
        self._is_number = isinstance(field, Numeric)
        self._keys = np.asarray(keys, np.int64)
        self._borders = np.asarray(borders, np.float32)
        self._missing_key = missing_key(field)
        self.count = len(self._borders) + 2 if self._is_number else len(self._keys) + 2

    def counts(self, slots: Slots) -> Counts:
        """Count the values of rows [N, S] by bin; a row of several categories counts several times."""
        if self._is_number:
            value_N = slots.values[:, self._slots.start]
            bin_N = np.searchsorted(self._borders, value_N)  # numpy sorts NaN behind all numbers
            bin_N[np.isnan(value_N)] = self.count - 1
            return np.bincount(bin_N, minlength=self.count)
        keys = slots.keys[:, self._slots]
        keys = keys.ravel() if keys.shape[1] == 1 else keys[keys != EMPTY_KEY]
        counts = np.zeros(self.count, np.int64)
        if len(self._keys):
            place = np.searchsorted(self._keys, keys)
            place[place == len(self._keys)] = 0
            known = self._keys[place] == keys
            counts[: len(self._keys)] = np.bincount(place[known], minlength=len(self._keys))
        counts[-1] = int((keys == self._missing_key).sum())
        counts[-2] = len(keys) - counts.sum()
        return counts


class SideBins:
    """The bins of one side's fields, of which there is a histogram."""

    def __init__(self, schema: FeatureSchema, side: Side, histograms: Mapping[str, FieldHistogram]) -> None:
        self.fields = [
            FieldBins(field, slots, histograms[field.name].keys, histograms[field.name].borders)
            for field, slots in schema.layout(side)
            if field.name in histograms
        ]

    def counts(self, slots: Slots) -> dict[str, Counts]:
        """Count rows [N, S] by field and bin."""
        return {field.name: field.counts(slots) for field in self.fields}


def missing_key(field: Categorical | MultiCategorical | Numeric) -> int:
    """Return the key that a missing category has."""
    return slot_key(field.name + MISSING_MARK)


def histogram_of(field: Categorical | MultiCategorical | Numeric, slots: slice, rows: Slots) -> FieldHistogram:
    """Return the histogram of a field in rows [N, S]: of its most frequent categories, or its numbers by quantiles."""
    keys: npt.NDArray[np.int64] = np.empty(0, np.int64)
    borders: npt.NDArray[np.float32] = np.empty(0, np.float32)
    if isinstance(field, Numeric):
        value_N = rows.values[:, slots.start]
        present = value_N[~np.isnan(value_N)]
        if len(present):
            shares = np.linspace(0, 1, MAX_BINS)[1:-1]
            borders = np.unique(np.quantile(present, shares, method="lower").astype(np.float32))
    else:
        found, count = np.unique(rows.keys[:, slots], return_counts=True)
        is_category = (found != EMPTY_KEY) & (found != missing_key(field))
        found, count = found[is_category], count[is_category]
        most = np.argsort(-count, kind="stable")[: MAX_BINS - 2]
        keys = np.sort(found[most])
    counts = FieldBins(field, slots, keys, borders).counts(rows)
    shares_B = np.round(counts / max(int(counts.sum()), 1), 6)
    return FieldHistogram(tuple(shares_B.tolist()), tuple(keys.tolist()), tuple(borders.tolist()))
