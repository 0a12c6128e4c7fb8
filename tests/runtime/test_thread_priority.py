from __future__ import annotations

import asyncio
import os
import threading

from app.runtime.thread_priority import NICENESS, on_background_thread, yield_to_requests


def test_a_thread_yields_and_the_others_do_not() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    found: list[int] = []

    def run() -> None:
        yield_to_requests()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found[0] >= 10
    assert os.getpriority(os.PRIO_PROCESS, threading.main_thread().native_id or 0) == before


def niceness() -> tuple[int, str]:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), threading.current_thread().name


async def test_all_threads_of_the_pool_yield() -> None:
    together = threading.Barrier(2, timeout=60)
    found = await asyncio.gather(*[on_background_thread(lambda: (together.wait(), niceness())[1]) for _ in range(2)])
    assert len({name for _, name in found}) == 2
    assert all(nice >= NICENESS and name.startswith("background") for nice, name in found)


async def test_what_takes_long_is_called_on_a_thread_that_yields() -> None:
    before = niceness()[0]
    assert (await on_background_thread(niceness))[0] >= NICENESS
    assert (await asyncio.to_thread(niceness))[0] == niceness()[0] == before
