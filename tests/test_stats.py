"""Rank correlation, distances and quantiles, against scipy, numpy and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy, ks_2samp, spearmanr

from app.stats import histogram_quantile, ks_distance, population_stability, spearman

BOUNDS = [0.1, 0.2, 0.5, 0.75]
histograms = st.lists(st.integers(0, 20), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1)


def test_spearman_is_pearson_of_mean_ranks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        x_N, y_N = rng.integers(0, 12, 200) / 7.0, rng.integers(0, 12, 200) / 3.0
        y_N = y_N + x_N * rng.integers(-1, 2)
        assert spearman(x_N, y_N) == pytest.approx(spearmanr(x_N, y_N).statistic, abs=1e-12)
    assert spearman(np.arange(5.0), np.ones(5)) == 0.0


@given(histograms, histograms)
def test_the_distance_is_that_of_scipy_over_the_same_buckets(counts: list[int], other: list[int]) -> None:
    expected = 0.0
    if sum(counts) and sum(other):
        expected = float(
            ks_2samp(*[np.repeat(np.arange(len(c)), c) for c in (counts, other)], method="asymp").statistic
        )
    assert ks_distance(counts, other) == pytest.approx(expected, abs=1e-12)
    assert ks_distance(other, counts) == ks_distance(counts, other)


@given(histograms, st.floats(0, 1))
def test_a_quantile_lies_in_the_bucket_of_the_value_with_that_rank(counts: list[int], share: float) -> None:
    value = histogram_quantile(counts, BOUNDS, share, low=0.0, high=1.0)
    if not sum(counts):
        assert value is None
        return
    bucket_of_rank = np.repeat(np.arange(len(counts)), counts)
    bucket = int(bucket_of_rank[max(0, int(np.ceil(share * sum(counts) - 1e-9)) - 1)])
    edges = [0.0, *BOUNDS, 1.0]
    assert value is not None
    assert edges[bucket] - 1e-9 <= value <= edges[bucket + 1] + 1e-9


def test_a_quantile_is_interpolated_within_its_bucket() -> None:
    assert histogram_quantile([0, 4, 0, 0, 0], BOUNDS, 0.25, low=0.0, high=1.0) == pytest.approx(0.125)
    assert histogram_quantile([0, 0, 0, 0, 2], BOUNDS, 0.5, low=0.0, high=1.0) == pytest.approx(0.875)


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 1000)), min_size=2, max_size=20))
def test_population_stability_is_the_symmetric_relative_entropy(counts: list[tuple[int, int]]) -> None:
    expected, found = (1e6 * np.array(side, np.float64) for side in zip(*counts, strict=True))
    share = expected / expected.sum()
    index = population_stability(share, found)
    assert index == pytest.approx(entropy(share, found) + entropy(found, share), rel=0.05, abs=0.01)
    assert population_stability(share, expected) == pytest.approx(0, abs=1e-4)


def test_population_stability_of_empty_bins_is_finite() -> None:
    assert population_stability([1.0, 0.0], [0, 500]) > 5
    assert population_stability([0.0, 1.0], [500, 0]) > 5
    assert population_stability([1.0, 0.0], [0, 0]) < 10
