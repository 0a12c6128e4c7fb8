"""Orders that are drawn have the propensities that they say, by formulas of their own and by how often they come."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from app.native.exploration import OrderDrawer
from app.native.layout import Isa
from app.native.scorer import BEST_FLOAT32_ISA, SUPPORTED_ISAS
from app.ranking_policy import EPSILON, SOFTMAX, RankingPolicy, parse_policy

DRAWS = 100_000
isas = st.sampled_from(SUPPORTED_ISAS)
probabilities = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=70).map(
    lambda scores: np.sort(np.array(scores, np.float32))[::-1].copy()
)
seeds = st.integers(0, 2**64 - 1)
softmax = st.floats(0.001, 100).map(lambda temperature: RankingPolicy(SOFTMAX, temperature))
epsilon = st.floats(0, 1, exclude_min=True).map(lambda probability: RankingPolicy(EPSILON, probability))


class Drawn(NamedTuple):
    order: np.ndarray
    scores: np.ndarray
    propensities: np.ndarray


def draw(
    policy: RankingPolicy,
    seed: int,
    score_N: np.ndarray,
    position_N: np.ndarray,
    places: int,
    isa: Isa = BEST_FLOAT32_ISA,
) -> Drawn:
    return Drawn(*OrderDrawer(policy, isa).draw(seed, score_N, position_N, places, places))


def propensities(policy: RankingPolicy, score_N: np.ndarray, places: Sequence[int]) -> list[float]:
    """Return by the formulas how likely each place is given those above it; `places` are ranks by score."""
    rest, found = list(range(len(score_N))), []
    p_N = [min(max(float(p), 1e-12), 1 - 2**-25) for p in score_N]
    log_weight_N = [math.log(p / (1 - p)) / policy.parameter for p in p_N]
    for place in places:
        if policy.name == SOFTMAX:
            largest = max(log_weight_N[other] for other in rest)
            total = math.fsum(math.exp(log_weight_N[other] - largest) for other in rest)
            found.append(math.exp(log_weight_N[place] - largest) / total)
        else:
            found.append(policy.parameter / len(rest) + (1 - policy.parameter if place == rest[0] else 0.0))
        rest.remove(place)
    return found


@given(isas, st.one_of(softmax, epsilon), probabilities, seeds, st.integers(1, 80))
def test_propensities_are_those_of_the_formulas(
    isa: Isa, policy: RankingPolicy, score_N: np.ndarray, seed: int, places: int
) -> None:
    """Whatever the scores, those of 0 and 1 among them."""
    n = len(score_N)
    position_N = np.random.default_rng(n).permutation(n)
    drawn = draw(policy, seed, score_N, position_N, places, isa=isa)
    assert len(drawn.order) == len(drawn.scores) == len(drawn.propensities) == min(places, n)
    rank_of = {position: rank for rank, position in enumerate(position_N.tolist())}
    ranks = [rank_of[position] for position in drawn.order.tolist()]
    assert len(set(ranks)) == len(ranks)
    assert drawn.scores.tolist() == score_N[ranks].tolist()
    assert drawn.propensities.tolist() == pytest.approx(propensities(policy, score_N, ranks), rel=1e-6, abs=1e-38)


@given(st.one_of(softmax, epsilon), probabilities, seeds, st.integers(1, 70))
def test_the_first_places_do_not_depend_on_how_many_are_drawn(
    policy: RankingPolicy, score_N: np.ndarray, seed: int, places: int
) -> None:
    """And the same seed draws the same again."""
    position_N = np.arange(len(score_N))
    some, all_of_them = (draw(policy, seed, score_N, position_N, count) for count in (places, len(score_N)))
    for few, many in zip(some, all_of_them, strict=True):
        assert few.tolist() == many[:places].tolist()


@given(softmax, probabilities, seeds)
def test_every_processor_draws_the_same(policy: RankingPolicy, score_N: np.ndarray, seed: int) -> None:
    orders = [draw(policy, seed, score_N, np.arange(len(score_N)), 70, isa=isa) for isa in SUPPORTED_ISAS]
    for other in orders[1:]:
        assert other.order.tolist() == orders[0].order.tolist()


@pytest.mark.parametrize("text", ["softmax:0.5", "softmax:0.05", "epsilon:0.3", "epsilon:1"])
def test_orders_come_as_often_as_their_propensities_say(text: str) -> None:
    """The product of the propensities is the probability of the first places, which a chi-squared test compares."""
    policy, places = parse_policy(text), 3
    score_N, position_N = np.array([0.32, 0.3, 0.28, 0.1, 0.01], np.float32), np.array([3, 0, 4, 1, 2])
    counts: Counter[tuple[int, ...]] = Counter()
    drawer = OrderDrawer(policy)
    for number in range(DRAWS):
        order, _, _ = drawer.draw(xxh3_64_intdigest(number.to_bytes(8)), score_N, position_N, places, places)
        counts[tuple(order.tolist())] += 1
    rank_of = position_N.argsort()
    expected = {
        order: DRAWS * math.prod(propensities(policy, score_N, rank_of[list(order)].tolist()))
        for order in itertools.permutations(range(len(score_N)), places)
    }
    assert math.fsum(expected.values()) == pytest.approx(DRAWS)
    likely = [order for order, count in expected.items() if count >= 5]
    rare = max(0.0, DRAWS - math.fsum(expected[order] for order in likely))
    assert sum(counts.values()) - sum(counts[order] for order in likely) <= rare + 5 * math.sqrt(rare) + 3
    squared = sum((counts[order] - expected[order]) ** 2 / expected[order] for order in likely)
    freedom = len(likely) - 1
    assert squared < freedom + 4 * math.sqrt(2 * freedom), "four standard deviations of chi squared"


def test_a_drawer_takes_any_number_of_candidates_after_any_other() -> None:
    drawer = OrderDrawer(RankingPolicy(SOFTMAX, 1.0))
    for n in (3, 2000, 1, 5000, 600):
        score_N, position_N = np.linspace(0.9, 0.1, n, dtype=np.float32), np.arange(n)
        drawn = Drawn(*drawer.draw(n, score_N, position_N, n, 40))
        assert sorted(drawn.order.tolist()) == position_N.tolist()
        assert len(drawn.propensities) == min(n, 40)
        assert drawn.order.tolist() == draw(drawer.policy, n, score_N, position_N, n).order.tolist()


def test_a_low_temperature_keeps_the_order_of_scores_that_differ() -> None:
    score_N = np.linspace(0.9, 0.1, 50, dtype=np.float32)
    drawn = draw(RankingPolicy(SOFTMAX, 0.001), 7, score_N, np.arange(50), 50)
    assert drawn.order.tolist() == list(range(50))
    assert drawn.propensities.tolist() == pytest.approx([1.0] * 50)
