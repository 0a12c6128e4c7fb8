"""Tests that answers are made while there is time for it, and given again where there is none."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.api.kept_answers import BURST_S, MAX_KEPT, MAX_SHARE, KeptAnswers
from app.errors import Overloaded

pytestmark = pytest.mark.anyio


class Maker:
    """Makes numbers, each in so many seconds of a clock of its own."""

    def __init__(self, takes_s: float) -> None:
        self.now = 1000.0
        self.made = 0
        self._takes_s = takes_s

    def clock(self) -> float:
        return self.now

    def __call__(self) -> int:
        self.now += self._takes_s
        self.made += 1
        return self.made


async def test_who_asks_now_and_then_has_an_answer_of_the_moment() -> None:
    maker = Maker(0.01)
    answers: KeptAnswers[int] = KeptAnswers(maker.clock, maker.clock)
    for number in range(1, 20):
        assert await answers.get("", maker) == number
        maker.now += 0.01 / MAX_SHARE


async def test_a_flood_has_a_share_of_a_core_and_the_last_answer() -> None:
    maker = Maker(0.01)
    answers: KeptAnswers[int] = KeptAnswers(maker.clock, maker.clock)
    began, last = maker.now, 0
    while maker.now < began + 60:
        answer = await answers.get("", maker)
        assert answer >= last, "never an older one"
        last = answer
        maker.now += 0.001
    spent_s = maker.made * 0.01
    assert 0.9 * 60 * MAX_SHARE <= spent_s <= (60 + BURST_S) * MAX_SHARE + 0.01


async def test_those_who_ask_at_the_same_time_have_the_same_answer() -> None:
    answers: KeptAnswers[int] = KeptAnswers()
    go, made = threading.Event(), []

    def make() -> int:
        assert go.wait(60)
        made.append(1)
        return len(made)

    asking = [asyncio.create_task(answers.get("", make)) for _ in range(8)]
    await asyncio.sleep(0)
    asking[0].cancel()  # its client has left
    go.set()
    assert await asyncio.gather(*asking[1:]) == [1] * 7


async def test_a_thread_that_is_held_up_takes_nothing_from_requests() -> None:
    maker = Maker(takes_s=10.0)
    answers: KeptAnswers[int] = KeptAnswers(maker.clock, lambda: 0.0)
    assert [await answers.get(limit, maker) for limit in range(5)] == [1, 2, 3, 4, 5]


async def test_many_different_questions_have_no_more_time_than_one() -> None:
    maker = Maker(0.02)
    answers: KeptAnswers[int] = KeptAnswers(maker.clock, maker.clock)
    asked = await asyncio.gather(*[answers.get(limit, maker) for limit in range(100)], return_exceptions=True)
    refused = [answer for answer in asked if isinstance(answer, Overloaded)]
    assert len(refused) == 100 - maker.made
    assert maker.made * 0.02 <= BURST_S * MAX_SHARE + 0.02
    maker.now += 10 * BURST_S
    for limit in range(2 * MAX_KEPT):
        await answers.get(1000 + limit, maker)
        maker.now += 10 * BURST_S
    assert len(answers._kept) == MAX_KEPT


async def test_a_fault_is_told_to_those_who_asked_and_not_kept() -> None:
    answers: KeptAnswers[int] = KeptAnswers()

    def fail() -> int:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await answers.get("", fail)
    assert await answers.get("", lambda: 7) == 7
