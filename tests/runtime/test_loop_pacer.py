"""Background work leaves the loop to requests: its share of the time is held to, whatever the loop's clock can tell."""

from __future__ import annotations

import asyncio
import time

import uvloop

from app.runtime.loop_pacer import LEAST_SHARE, SHARE_OF_IDLE, LoopPacer, SliceTurns, until_idle
from tests.waiting import in_some_run
from tests.work import spin


async def work_in_slices(slices: int, slice_s: float) -> tuple[float, LoopPacer]:
    """Work in slices; return the share of the time that they took, and the pacer."""
    pacer, began = LoopPacer(), time.perf_counter()
    for _ in range(slices):
        spin(slice_s)
        await pacer.throttle()
    return slices * slice_s / (time.perf_counter() - began), pacer


def highest_share(began_s: float, began_cpu_s: float) -> float:
    """Return the share that the work may take at most, if requests had half of this thread's processor time since then.

    The time that other programs took counts as idle.
    """
    return SHARE_OF_IDLE * (1 - 0.5 * (time.thread_time() - began_cpu_s) / (time.perf_counter() - began_s))


def test_on_an_idle_loop_it_takes_its_share_even_in_slices_shorter_than_the_loops_clock_knows() -> None:
    def test() -> None:
        share, pacer = uvloop.run(work_in_slices(200, 0.0004))
        assert share < 1.25 * SHARE_OF_IDLE
        assert 0.5 * SHARE_OF_IDLE < pacer.share <= SHARE_OF_IDLE

    in_some_run(test)


def test_on_a_busy_loop_it_takes_what_requests_leave() -> None:
    async def test() -> None:
        done = False

        async def requests() -> None:
            while not done:
                spin(0.002)
                await asyncio.sleep(0.0005)

        busy = asyncio.create_task(requests())
        began, began_cpu = time.perf_counter(), time.thread_time()
        share, pacer = await work_in_slices(60, 0.0005)
        done = True
        await busy
        assert LEAST_SHARE <= pacer.share < highest_share(began, began_cpu)
        assert share < 0.3

    in_some_run(lambda: asyncio.run(test()))


def test_however_busy_the_loop_is_the_work_ends() -> None:
    async def test() -> None:
        done = False

        def request() -> None:
            if not done:
                spin(0.001)
                asyncio.get_running_loop().call_soon(request)

        request()
        began, began_cpu = time.perf_counter(), time.thread_time()
        share, pacer = await asyncio.wait_for(work_in_slices(20, 0.0005), 20)
        done = True
        assert LEAST_SHARE <= pacer.share < highest_share(began, began_cpu)
        assert share < 0.3

    in_some_run(lambda: asyncio.run(test()))


def test_an_overloaded_loop_whose_turns_are_long_does_not_starve_the_work() -> None:
    async def test() -> None:
        done, turns = False, 0

        def turn() -> None:
            nonlocal turns
            if not done:
                turns += 1
                spin(0.05)
                asyncio.get_running_loop().call_soon(turn)

        turn()
        await asyncio.wait_for(work_in_slices(40, 0.0005), 20)
        done = True
        assert turns < 20, "several slices a turn"

    asyncio.run(test())


def test_a_slice_begins_when_no_request_can_go_on() -> None:
    async def test() -> None:
        loop, left, done = asyncio.get_running_loop(), 0, False

        def go_on() -> None:
            nonlocal left
            spin(0.0003)
            left -= 1
            if left:
                loop.call_soon(go_on)

        async def requests() -> None:
            nonlocal left
            while not done:
                if not left:
                    left = 6
                    loop.call_soon(go_on)
                await asyncio.sleep(0.003)

        coming = asyncio.create_task(requests())
        amid = 0
        for _ in range(100):
            spin(0.0002)
            await until_idle(time.perf_counter() + 10)
            amid += 0 < left < 6  # all six: it has only just come
        began = time.perf_counter()
        await until_idle(began)
        assert time.perf_counter() - began < 0.1, "nor is it waited for longer than that"
        done = True
        await coming
        assert amid == 0, "half of the time a request is at work"

    asyncio.run(test())


def test_a_slice_waits_for_a_reply_that_is_about_to_come_and_not_for_one_that_is_not() -> None:
    async def test() -> None:
        turns, order = SliceTurns(), []

        async def usual(seconds: float) -> None:
            with turns.replies:
                await asyncio.sleep(seconds)
            order.append("usual")

        async def long(slices: int) -> None:
            for _ in range(slices):
                await turns.next()
                order.append("slice")

        for seconds, first in ((0.0, "usual"), (60.0, "slice")):
            order.clear()
            waiting = asyncio.create_task(usual(seconds))
            await asyncio.sleep(0)
            if not seconds:
                waiting.cancel()  # as a client does who leaves: no slice waits for it any more
                assert await asyncio.gather(waiting, return_exceptions=True)
                waiting = asyncio.create_task(usual(0.0))
                await asyncio.sleep(0)
            await asyncio.wait_for(long(3), 30)
            assert order[0] == first
            waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert turns.replies.count == 0

    asyncio.run(test())
