"""Tests of when a canary has strayed too far from stable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.ranking.canary import CanaryLimits, find_failure
from app.ranking.score_histogram import ScoreStats
from tests.ranking.scores import answer_scores, stats_of

LIMITS = CanaryLimits(min_requests=200, error_rate=0.02, non_finite_rate=0.02, ctr_ratio=1.5, drift=0.3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"errors": 21}, "errors"),
        ({"errors": 20}, None),
        ({"non_finite": 30}, "finite"),
        ({}, None),
    ],
)
def test_rates_beyond_the_limit_are_faults(change: dict[str, int], reason: str | None) -> None:
    rng = np.random.default_rng(0)
    stable = stats_of(answer_scores(rng, count=4000))
    canary = replace(stats_of(answer_scores(rng, count=4000), 1000 - change.get("errors", 0)), **change)
    # The two users drawn differ; only rates are judged here.
    failure = find_failure(canary, stable, replace(LIMITS, ctr_ratio=1e9, drift=1.0))
    assert (failure.reason if failure else None) == reason


def test_what_stable_does_too_is_not_held_against_the_canary() -> None:
    none = np.zeros(0, np.float32)
    assert find_failure(stats_of(none, 400, non_finite=40), stats_of(none, 4000, non_finite=400), LIMITS) is None
    assert find_failure(stats_of(none, 400, non_finite=40), stats_of(none, 4000), LIMITS) is not None


def test_few_requests_are_enough_where_the_rest_could_not_make_up_for_them() -> None:
    none = np.zeros(0, np.float32)
    assert find_failure(stats_of(none, 0, errors=4), ScoreStats(), LIMITS) is None, "4 of the 200 due are 2 %"
    failure = find_failure(stats_of(none, 0, errors=5), ScoreStats(), LIMITS)
    assert failure is not None
    assert failure.detail == "it failed to score 5 of 5 requests; 2.00% are allowed"


@pytest.mark.parametrize(
    ("shift", "spread", "reason"), [(0.8, 1.0, "shift"), (-0.8, 1.0, "shift"), (-0.05, 0.02, "drift"), (0, 1, None)]
)
def test_scores_elsewhere_than_stables_are_a_fault(shift: float, spread: float, reason: str | None) -> None:
    rng = np.random.default_rng(3)
    stable, canary = ScoreStats(1000), ScoreStats(1000)
    for _ in range(1000):
        stable.add_scores(answer_scores(rng))
        canary.add_scores(answer_scores(rng, shift, spread))
    failure = find_failure(canary, stable, replace(LIMITS, drift=0.2, ctr_ratio=1.6))
    assert (failure.reason if failure else None) == reason
    few = replace(LIMITS, min_requests=1001, drift=0.2)
    assert find_failure(canary, stable, few) is None, "not before there are enough"
