"""Polling ends by itself, is one chain of turns, and is not taken for work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import uvloop

from app.runtime.busy_poll import BusyPoll
from app.runtime.loop_pacer import SHARE_OF_IDLE, LoopPacer
from tests.work import spin


class CountingBusyPoll(BusyPoll):
    def __init__(self, seconds: float, thread_s: Callable[[], float] = time.thread_time) -> None:
        super().__init__(seconds, thread_s)
        self.turns = 0

    def _turn(self) -> None:
        self.turns += 1
        super()._turn()


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> object:
    return request.param


def test_the_loop_turns_until_the_time_is_over_and_then_sleeps(run) -> None:  # type: ignore[no-untyped-def]
    async def test() -> tuple[int, int]:
        poll.on_answer()
        await asyncio.sleep(0.1)
        then = poll.turns
        await asyncio.sleep(0.05)
        return then, poll.turns

    poll = CountingBusyPoll(0.05)
    turned, later = run(test())
    assert turned > 5
    assert later == turned


def test_each_answer_puts_the_end_off_and_begins_no_second_chain_of_turns() -> None:
    async def test() -> None:
        for _ in range(20):
            poll.on_answer()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert poll.turns <= 2 * 20 + 1
        seen = poll.turns
        await asyncio.sleep(0.02)
        assert poll.turns > seen

    poll = CountingBusyPoll(0.05)
    uvloop.run(test())


def test_without_it_nothing_turns() -> None:
    async def test() -> None:
        poll.on_answer()
        await asyncio.sleep(0.01)

    poll = CountingBusyPoll(0.0)
    uvloop.run(test())
    assert poll.turns == 0


def test_what_turns_take_is_not_work_and_what_requests_take_is() -> None:
    """The processor time is made up: how long a turn takes is up to what else the machine does."""
    taken_s = {"turns": 0.0, "requests": 0.0}

    class TurnsOfTenMicroseconds(CountingBusyPoll):
        def _turn(self) -> None:
            taken_s["turns"] += 10e-6
            super()._turn()

    async def test() -> None:
        for _ in range(20):
            poll.on_answer()
            taken_s["requests"] += 0.0005
            await asyncio.sleep(0.003)

    poll = TurnsOfTenMicroseconds(0.1, lambda: sum(taken_s.values()))
    uvloop.run(test())
    assert poll.turns > 20
    # The turn that a request was worked on in is work as a whole.
    assert taken_s["requests"] <= poll.worked_s() + 1e-9 < taken_s["requests"] + 21 * 10e-6


def test_background_work_keeps_its_share_beside_it() -> None:
    async def test() -> LoopPacer:
        pacer = LoopPacer(poll.worked_s)
        poll.on_answer()
        for _ in range(100):
            spin(0.0004)
            await pacer.throttle()
        return pacer

    poll = BusyPoll(10.0)
    assert uvloop.run(test()).share > 0.6 * SHARE_OF_IDLE
