"""Tests of what is counted of answers, and of the quantiles and distances computed from it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking.score_histogram import BOUNDS, ScoreStats
from tests.ranking.scores import answer_scores, stats_of

probabilities = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=200).map(lambda x: np.array(x, np.float32))


@given(probabilities)
def test_every_answer_adds_one_request_and_a_few_of_its_scores(score_N: npt.NDArray) -> None:
    stats = ScoreStats()
    score_N = np.sort(score_N)[::-1]
    stats.add_scores(score_N)
    assert min(len(score_N), 4) <= stats.sampled <= 8
    assert sum(stats.counts) == stats.sampled
    assert score_N.min() <= (stats.mean or 0.0) * (1 + 1e-6)
    assert (stats.mean or 0.0) <= score_N.max() * (1 + 1e-6)


@given(probabilities, st.floats(0, 1))
def test_a_quantile_is_within_its_bucket(score_N: npt.NDArray, share: float) -> None:
    stats = stats_of(score_N)
    value = stats.quantile(share)
    assert value is not None
    exact = np.sort(score_N)[max(0, int(np.ceil(share * len(score_N) - 1e-9)) - 1)]
    edges = np.array([0.0, *BOUNDS, 1.0])
    bucket = int(np.searchsorted(BOUNDS, exact))
    assert edges[bucket] - 1e-6 <= value <= edges[bucket + 1] + 1e-6


@given(probabilities, probabilities)
def test_the_distance_is_symmetric_and_what_it_is_by_the_book(one: npt.NDArray, other: npt.NDArray) -> None:
    a, b = stats_of(one), stats_of(other)
    assert a.distance(b) == b.distance(a)
    assert a.distance(a) == 0.0
    shares = [np.searchsorted(BOUNDS, part)[:, None] <= np.arange(len(BOUNDS) + 1) for part in (one, other)]
    by_bucket = np.abs(shares[0].mean(0) - shares[1].mean(0))
    assert a.distance(b) == pytest.approx(by_bucket.max(), abs=1e-9)
    assert a.distance(b) <= 1.0


def test_the_sampled_mean_is_that_of_all_scores() -> None:
    rng = np.random.default_rng(0)
    stats, all_scores = ScoreStats(), []
    for _ in range(1600):
        answer = answer_scores(rng, count=500)
        stats.add_scores(answer)
        all_scores.append(answer)
    everything = np.concatenate(all_scores)
    assert stats.mean == pytest.approx(float(everything.mean()), rel=0.03)
    for share in (0.1, 0.5, 0.9):
        assert stats.quantile(share) == pytest.approx(float(np.quantile(everything, share)), rel=0.1)


def test_what_was_since_a_mark_is_the_difference() -> None:
    rng = np.random.default_rng(1)
    stats = ScoreStats()
    stats.add_scores(answer_scores(rng))
    mark = stats.copy()
    answer = answer_scores(rng, count=4)
    stats.add_scores(answer)
    stats.errors += 3
    since = stats.since(mark)
    assert (since.errors, since.sampled, sum(since.counts)) == (3, 4, 4)
    assert since.total == pytest.approx(float(answer.sum()))
