"""Tests of spacing answers out, by a clock that stands still unless it is told."""

from __future__ import annotations

import asyncio

import pytest

from app.api.spaced_answers import MOST_WAIT_S, SpacedAnswers
from app.errors import Overloaded

pytestmark = pytest.mark.anyio

GAP_S = 0.01


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_an_answer_now_and_then_begins_at_once(clock: Clock) -> None:
    spaced = SpacedAnswers(GAP_S, clock)
    for _ in range(5):
        await spaced.next()
        clock.now += GAP_S
    assert clock.slept == []


async def test_many_at_once_begin_one_gap_after_the_other(clock: Clock) -> None:
    spaced = SpacedAnswers(GAP_S, clock)
    for _ in range(4):
        await spaced.next()
    assert clock.slept == pytest.approx([GAP_S, 2 * GAP_S, 3 * GAP_S])


async def test_what_would_wait_too_long_is_refused_and_moves_nobody(clock: Clock) -> None:
    spaced = SpacedAnswers(GAP_S, clock)
    for _ in range(int(MOST_WAIT_S / GAP_S)):
        await spaced.next()
    clock.now -= GAP_S
    for _ in range(3):
        with pytest.raises(Overloaded):
            await spaced.next()
    clock.now += 2 * GAP_S
    await spaced.next()
