"""Small statistics that several rooms need: rank correlation, and what histograms say of distributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def spearman(x_N: Floats, y_N: Floats) -> float:
    """Return Spearman's rank correlation in [-1, 1], with tied values at their mean rank.

    It is 0 where all values of one side are tied.
    """
    x_N, y_N = _ranks(x_N), _ranks(y_N)
    spread = float(x_N.std() * y_N.std())
    return float(((x_N - x_N.mean()) * (y_N - y_N.mean())).mean() / spread) if spread else 0.0


def _ranks(x_N: Floats) -> Floats:
    _, rank_N, counts = np.unique(x_N, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[rank_N], np.float64)


def ks_distance(counts: Sequence[int], other_counts: Sequence[int]) -> float:
    """Return the Kolmogorov-Smirnov distance in [0, 1] of two histograms over the same buckets.

    It is the largest difference, at any bucket's upper bound, of the shares of values below; 0 where one is empty.
    """
    total, other_total = sum(counts), sum(other_counts)
    if not total or not other_total:
        return 0.0
    below = np.cumsum(counts) / total
    return float(np.abs(below - np.cumsum(other_counts) / other_total).max())


def population_stability(share_B: npt.ArrayLike, count_B: npt.ArrayLike) -> float:
    """Return the population stability index of counts against expected shares: 0 where they agree, 0.2 is a lot.

    It is the symmetric relative entropy of the two distributions (Siddiqi 2006, Credit Risk Scorecards). Half a value
    is added to each bin of the counts, and to an expected share half of one in ten thousand, so that empty bins count
    as rare ones.
    """
    expected_B = np.asarray(share_B, np.float64) + 0.5e-4
    found_B = np.asarray(count_B, np.float64) + 0.5
    expected_B, found_B = expected_B / expected_B.sum(), found_B / found_B.sum()
    return float(((found_B - expected_B) * np.log(found_B / expected_B)).sum())


def histogram_quantile(
    counts: Sequence[int], bounds: Sequence[float], share: float, *, low: float, high: float
) -> float | None:
    """Return the value that `share` of a histogram's values lie below, interpolated within its bucket.

    Args:
        counts: values per bucket, one more than `bounds`: the last one counts those above all bounds.
        bounds: ascending upper bounds of the buckets.
        low: lower bound of the first bucket.
        high: upper bound of the last bucket.

    Returns None for an empty histogram.
    """
    total = sum(counts)
    if not total:
        return None
    remaining = share * total
    for index, count in enumerate(counts):
        if count and remaining <= count:
            lower = bounds[index - 1] if index else low
            upper = bounds[index] if index < len(bounds) else high
            return lower + (upper - lower) * remaining / count
        remaining -= count
    return high
