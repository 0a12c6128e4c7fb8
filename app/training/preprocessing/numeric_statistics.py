"""Fit what preprocessing learns of numbers, by streaming: mean, deviation and quantile borders.

All are exact, in two passes and bounded memory. Moments are merged chunk by chunk (Chan et al. 1979). Quantiles come
from the order of float32 bits: the first pass counts their upper halves (65,536 counters a field), the second counts
the lower halves of those few upper halves that a quantile falls in (at most 1 MiB for each order statistic).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from app.features.fields import Numeric
from app.features.slots import Values
from app.models.preprocessing import NumericStatistics
from app.models.side_input import transform
from app.training.preprocessing.gather import Gather, single_shard

MIN_DEVIATION = 1e-6
UPPER_HALVES = 1 << 16
"""There are this many upper halves of 32 bits."""
SIGN_BIT = np.uint32(1 << 31)

NumberChunks = Callable[[], Iterator[Values]]
"""Returns the raw numbers [n, M] of M fields from the beginning, missing ones NaN."""


def fit_numerics(
    fields: Sequence[Numeric], chunks: NumberChunks, gather: Gather = single_shard
) -> dict[str, NumericStatistics]:
    """Fit mean, deviation and quantile borders of each field, by name.

    Mean and deviation are of the numbers after the transforms before `standardise`, borders of the raw numbers. Missing
    numbers are left out; a constant field has deviation 1.

    Args:
        gather: gathers the counters of all shards, each with its chunks, so that the numbers of all are fitted: borders
            exactly, moments up to the rounding of another order of sums.
    """
    counters = [_NumberCounters(field) for field in fields]
    for chunk_NM in chunks() if counters else ():
        for column, field_counters in enumerate(counters):
            field_counters.first_pass(chunk_NM[:, column])
    for field_counters in counters:
        field_counters.gather_first(gather)
    if any(field_counters.has_borders() for field_counters in counters):
        for chunk_NM in chunks():
            for column, field_counters in enumerate(counters):
                if field_counters.has_borders():
                    field_counters.second_pass(chunk_NM[:, column])
    for field_counters in counters:
        field_counters.gather_second(gather)
    return {field.name: field_counters.statistics() for field, field_counters in zip(fields, counters, strict=True)}


def numeric_statistics(field: Numeric, raw_N: Values) -> NumericStatistics:
    """Fit one field to raw numbers [N]."""
    return fit_numerics([field], lambda: iter([raw_N[:, None]]))[field.name]


class _NumberCounters:
    """Holds the moments of one field, and counters from which its quantiles follow."""

    def __init__(self, field: Numeric) -> None:
        self._field = field
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._upper = np.zeros(UPPER_HALVES, np.int64)
        self._bits = np.empty(0, np.uint32)
        self._counts = np.empty(0, np.int64)

    def first_pass(self, raw_N: Values) -> None:
        present_N = raw_N[~np.isnan(raw_N)]
        if not len(present_N):
            return
        x_N = torch.from_numpy(np.array(present_N))
        for name in self._field.transforms:
            if name == "standardise":
                break
            x_N = transform(x_N, name)
        x64_N = x_N.double().numpy()
        mean = float(x64_N.mean())
        self._add(len(x64_N), mean, float(np.square(x64_N - mean).sum()))
        if self._field.buckets > 1:
            self._upper += np.bincount(_ordered(present_N) >> 16, minlength=UPPER_HALVES)

    def _add(self, count: int, mean: float, squares: float) -> None:
        difference, total = mean - self._mean, self._count + count
        self._squares += squares + difference * difference * self._count * count / total
        self._mean += difference * count / total
        self._count = total

    def gather_first(self, gather: Gather) -> None:
        """Replace the counters of the first pass by those of all shards."""
        shards = gather((self._count, self._mean, self._squares, self._upper))
        if len(shards) == 1:
            return
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        for count, mean, squares, _ in shards:
            if count:
                self._add(count, mean, squares)
        self._upper = np.sum([upper for *_, upper in shards], axis=0, dtype=np.int64)

    def gather_second(self, gather: Gather) -> None:
        """Replace the counters of the second pass by those of all shards."""
        shards = gather((self._bits, self._counts))
        if len(shards) == 1:
            return
        self._bits, self._counts = np.empty(0, np.uint32), np.empty(0, np.int64)
        for bits, counts in shards:
            self._add_bits(bits, counts)

    def has_borders(self) -> bool:
        """Tell whether quantiles are wanted and there are numbers."""
        return self._field.buckets > 1 and self._count > 0

    def second_pass(self, raw_N: Values) -> None:
        bits_N = _ordered(raw_N[~np.isnan(raw_N)])
        self._add_bits(*np.unique(bits_N[self._counted_halves[bits_N >> 16]], return_counts=True))

    def _add_bits(self, bits: npt.NDArray[np.uint32], counts: npt.NDArray[np.int64]) -> None:
        merged = np.concatenate([self._bits, bits])
        self._bits, index = np.unique(merged, return_inverse=True)
        self._counts = np.bincount(index, np.concatenate([self._counts, counts]), len(self._bits)).astype(np.int64)

    @property
    def _counted_halves(self) -> npt.NDArray[np.bool_]:
        chosen = np.zeros(UPPER_HALVES, np.bool_)
        chosen[np.searchsorted(np.cumsum(self._upper), self._ranks().ravel(), side="right")] = True
        return chosen

    def _ranks(self) -> npt.NDArray[np.int64]:
        """Return the two neighbours [2, Q] of each quantile among the sorted numbers, from 0."""
        low_Q = np.floor(self._positions()).astype(np.int64)
        return np.stack([low_Q, np.minimum(low_Q + 1, self._count - 1)])

    def _positions(self) -> npt.NDArray[np.float64]:
        buckets = self._field.buckets
        positions: npt.NDArray[np.float64] = np.linspace(0, 1, buckets + 1)[1:-1] * (self._count - 1)
        return positions

    def statistics(self) -> NumericStatistics:
        if not self._count:
            return NumericStatistics()
        deviation = float(np.sqrt(self._squares / self._count))
        borders: tuple[float, ...] = ()
        if self.has_borders():
            neighbours_2Q = self._numbers_at(self._ranks())
            share_Q = self._positions() % 1.0
            quantiles = [np.quantile(pair, share) for pair, share in zip(neighbours_2Q.T, share_Q, strict=True)]
            borders = tuple(float(border) for border in np.unique(np.array(quantiles, np.float32)))
        return NumericStatistics(self._mean, deviation if deviation > MIN_DEVIATION else 1.0, borders)

    def _numbers_at(self, ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the numbers at these ranks."""
        # Only numbers with a chosen upper half were counted, so ranks are those among them.
        chosen, upper = self._counted_halves, np.cumsum(self._upper)
        half = np.searchsorted(upper, ranks, side="right")
        left_out = np.cumsum(np.where(chosen, 0, self._upper))[half]
        index = np.searchsorted(np.cumsum(self._counts), ranks - left_out, side="right")
        return _floats(self._bits[index]).astype(np.float64)


def _ordered(values_N: Values) -> npt.NDArray[np.uint32]:
    """Return whole numbers in the order of the floats."""
    bits_N = np.ascontiguousarray(values_N).view(np.uint32)
    return np.where(bits_N & SIGN_BIT, ~bits_N, bits_N | SIGN_BIT)


def _floats(ordered: npt.NDArray[np.uint32]) -> Values:
    """Return the float that `_ordered` turned into this number."""
    return np.where(ordered & SIGN_BIT, ordered & ~SIGN_BIT, ~ordered).astype(np.uint32).view(np.float32)
