"""The interval of a canary's clicks holds under peeking, whatever users are like, and finds what differs.

Simulations have the seeds that they say. Users are drawn for an arm and keep it, as by routing; some ask often, some
like everything; a request's clicks come together.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking.click_rates import CANARY_ARM, STABLE_ARM, ClickInterval, ClickRates
from tests.ranking.audience import Audience

ERROR = 0.05


def first_verdict(audience: Audience, *, steps: int) -> tuple[int, ClickInterval] | None:
    """Look after each step; return the clicks until zero was left out for the first time, and the interval."""
    for _ in range(steps):
        audience.ask(200)
        found = audience.rates.interval(ERROR)
        if found is not None and not found.low <= 0 <= found.high:
            return int(audience.rates.clicks.sum()), found
    return None


@pytest.mark.parametrize(("share", "users", "seed"), [(0.05, 3000, 1), (0.2, 3000, 2), (0.5, 300, 3)])
def test_a_canary_like_stable_is_found_to_differ_as_rarely_as_asked_for(share: float, users: int, seed: int) -> None:
    """200 canaries of 20,000 requests each, looked at a hundred times: 5 % may be found to differ."""
    rng = np.random.default_rng(seed)
    wrong = sum(first_verdict(Audience(rng, share=share, users=users), steps=100) is not None for _ in range(200))
    assert wrong / 200 <= ERROR


def test_taken_for_independent_clicks_would_be_wrong_far_too_often() -> None:
    """What the dispersion is for: without it the same audience has five times as many good canaries found to differ."""
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(40):
        audience = Audience(rng, share=0.2, users=3000)
        for _ in range(100):
            audience.ask(200)
            found = audience.rates.interval(ERROR)
            if (
                found is not None
                and abs(found.difference) * math.sqrt(found.dispersion) > found.high - found.difference
            ):
                wrong += 1
                break
    assert wrong / 40 > 5 * ERROR


@pytest.mark.parametrize(("lift", "share"), [(1.2, 0.1), (0.8, 0.1), (1.2, 0.5), (0.8, 0.5)])
def test_a_fifth_more_or_fewer_clicks_are_found_within_ten_thousand(lift: float, share: float) -> None:
    """20 canaries of 20,000 users each, who click 0.3 times a request (seed 5)."""
    rng = np.random.default_rng(5)
    found = [
        first_verdict(Audience(rng, share=share, users=20_000, lift=lift, often=0.0), steps=180) for _ in range(20)
    ]
    in_time = [one for one in found if one is not None and one[0] <= 10_000]
    assert len(in_time) >= 18
    assert all((one[1].difference > 0) == (lift > 1) for one in in_time)


def test_a_canary_that_nobody_clicks_is_found() -> None:
    rng = np.random.default_rng(6)
    verdict = first_verdict(Audience(rng, share=0.05, users=3000, lift=0.0), steps=200)
    assert verdict is not None
    assert verdict[1].clicks == 0
    assert verdict[1].high < 0


def rates(requests: tuple[float, float], clicks: tuple[float, float], groups: int = 64) -> ClickRates:
    """Return rates whose clicks are spread evenly over the groups."""
    made = ClickRates(groups)
    for arm in (STABLE_ARM, CANARY_ARM):
        made.requests[arm] = requests[arm] / groups
        made.clicks[arm] = clicks[arm] / groups
    return made


@given(st.integers(100, 10**6), st.integers(100, 10**6), st.floats(0.01, 0.9))
def test_equal_rates_differ_by_nothing_and_the_interval_holds_it(stable: int, canary: int, rate: float) -> None:
    found = rates((stable, canary), (stable * rate, canary * rate)).interval(ERROR)
    if found is not None:
        assert found.difference == pytest.approx(0, abs=1e-9)
        assert found.low < 0 < found.high
        assert found.dispersion == 1


@given(st.integers(1, 50), st.floats(0.5, 2))
def test_more_clicks_narrow_the_interval_and_a_smaller_error_widens_it(times: int, lift: float) -> None:
    one = rates((5000, 1000), (500, 100 * lift)).interval(ERROR)
    more = rates((5000 * times, 1000 * times), (500 * times, 100 * times * lift)).interval(ERROR)
    surer = rates((5000, 1000), (500, 100 * lift)).interval(ERROR / 10)
    assert one is not None
    assert more is not None
    assert surer is not None
    assert more.difference == pytest.approx(one.difference)
    assert more.high - more.low <= one.high - one.low < surer.high - surer.low


def test_the_interval_is_where_the_mixture_of_likelihood_ratios_is_one_over_the_error() -> None:
    """The mixture by numbers: the mean over true differences of their likelihood ratio to none."""
    found = rates((5000, 1000), (500, 130)).interval(ERROR)
    assert found is not None
    information = found.expected * (1 - 1 / 6)
    score = information * (found.high - found.difference)
    differences = np.linspace(-3, 3, 200_001)
    density = np.exp(-(differences**2) / (2 * 0.15**2)) / (0.15 * math.sqrt(2 * math.pi))
    ratios = np.exp(differences * score - differences**2 * information / 2)
    assert np.trapezoid(density * ratios, differences) == pytest.approx(1 / ERROR, rel=1e-6)


@pytest.mark.parametrize(
    ("requests", "clicks"), [((0, 100), (0, 50)), ((100, 0), (50, 0)), ((100, 100), (0, 0)), ((10**6, 10), (1000, 1))]
)
def test_too_little_says_nothing(requests: tuple[float, float], clicks: tuple[float, float]) -> None:
    assert rates(requests, clicks).interval(ERROR) is None
