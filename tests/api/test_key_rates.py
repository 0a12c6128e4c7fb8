"""Tests of how much a key may ask for, on a clock that the test sets."""

from __future__ import annotations

import random

import pytest

from app.api.key_rates import BODY_BYTES, KeyRates
from app.errors import RateLimited

ONE, OTHER = b"one", b"other"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(rates: KeyRates, key: bytes, times: int = 1000, size: int = 100) -> int:
    """Return how many of so many requests are let through."""
    through = 0
    for _ in range(times):
        try:
            rates.take(key, size)
        except RateLimited:
            continue
        through += 1
    return through


def test_a_key_gets_its_rate_and_leaves_the_others_theirs(clock: Clock) -> None:
    rates = KeyRates(20, clock)
    assert taken(rates, ONE) == 20, "a burst"
    assert taken(rates, ONE) == 0
    assert taken(rates, OTHER) == 20
    through = 0
    dice = random.Random(1)
    for _ in range(1000):
        clock.now += dice.random() * 0.1
        through += taken(rates, ONE, 5)
    assert through == pytest.approx((clock.now - 1000) * 20, rel=0.02)
    clock.now += 1e6
    assert taken(rates, ONE) == 20, "silence is not saved up for longer"


@pytest.mark.parametrize("rate", [0.1, 0.5, 3.0])
def test_whoever_comes_back_when_told_is_let_through(rate: float, clock: Clock) -> None:
    rates = KeyRates(rate, clock)
    taken(rates, ONE)
    with pytest.raises(RateLimited) as error:
        rates.take(ONE, 100)
    assert error.value.retry_after_s >= 1
    clock.now += error.value.retry_after_s
    rates.take(ONE, 100)


def test_a_large_body_counts_as_several_requests_and_one_is_always_possible(clock: Clock) -> None:
    rates = KeyRates(2, clock)
    rates.take(ONE, 20 * BODY_BYTES)
    with pytest.raises(RateLimited) as error:
        rates.take(ONE, 1)
    assert error.value.retry_after_s == 10
    clock.now += 10
    rates.take(ONE, 20 * BODY_BYTES)
