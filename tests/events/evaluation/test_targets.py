"""Propensities of a policy in question are those with which the service would draw by it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events.evaluation.targets import target_propensities
from app.native.exploration import OrderDrawer
from app.ranking_policy import GREEDY, RankingPolicy, parse_policy


@given(
    st.sampled_from(["softmax:0.001", "softmax:0.05", "softmax:3", "epsilon:0.1", "epsilon:1"]),
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_they_are_those_of_the_draw(text: str, lengths: list[int], seed: int) -> None:
    policy, draw = parse_policy(text), np.random.default_rng(seed)
    drawer, places = OrderDrawer(policy), 5
    scores, expected = np.full((len(lengths), 12), 0.5), np.ones((len(lengths), places))
    for row, n in enumerate(lengths):
        score_N = np.sort(draw.random(n).astype(np.float32))[::-1].copy()
        _, shown, propensities = drawer.draw(int(draw.integers(2**63)), score_N, np.arange(n), n, n)
        scores[row, :n], expected[row, : min(n, places)] = shown, propensities[:places]
    length_B = np.array(lengths)
    found = target_propensities(policy, scores, length_B, length_B, places)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-30)


def test_greedy_takes_the_highest_of_the_rest_and_shares_among_ties() -> None:
    scores = np.array([[0.9, 0.5, 0.5, 0.1], [0.5, 0.9, 0.5, 0.1], [0.2, 0.1, 0.7, 0.8]])
    found = target_propensities(RankingPolicy(GREEDY), scores, np.array([4, 4, 2]), np.array([4, 4, 9]), 4)
    assert found.tolist() == [[1, 0.5, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]


def test_epsilon_draws_from_all_candidates_not_the_recorded_ones() -> None:
    found = target_propensities(parse_policy("epsilon:0.5"), np.array([[0.1, 0.9]]), np.array([2]), np.array([100]), 2)
    assert found == pytest.approx(np.array([[0.5 / 100, 0.5 / 99 + 0.5]]))
