"""What makes Prometheus metrics cheap: histograms counted in plain numbers, and a counter's children by label."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import Counter, Histogram


def add_observations(histogram: Histogram, counts: Sequence[int], total: float) -> None:
    """Add many observations to a histogram at once, for which prometheus_client has no public way.

    Args:
        counts: observations per bucket, with one more count for those above all bounds.
        total: their sum.
    """
    for bucket, count in zip(histogram._buckets, counts, strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(total)


class HistogramBuffer:
    """Observations of one histogram, counted in plain numbers until they are flushed."""

    def __init__(self, histogram: Histogram, bounds: Sequence[float]) -> None:
        self._histogram = histogram
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, values: Sequence[float]) -> None:
        """Count observations."""
        bounds, counts = self._bounds, self._counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self._total += sum(values)

    def flush(self) -> None:
        """Hand the observations to the histogram."""
        add_observations(self._histogram, self._counts, self._total)
        self._counts = [0] * len(self._counts)
        self._total = 0.0


class LabelledCounter(dict[str, Counter]):
    """The children of a counter by the value of its one label: `metrics.degraded["stale_item_features"].inc()`.

    They are kept because `Counter.labels()` costs more than the increment.
    """

    def __init__(self, counter: Counter, expected: Iterable[str] = ()) -> None:
        """Args: expected: labels exported as 0 from the start, so that their first event shows as a rate."""
        super().__init__()
        self._counter = counter
        for value in expected:
            self[value]

    def __missing__(self, value: str) -> Counter:
        child = self[value] = self._counter.labels(value)
        return child
