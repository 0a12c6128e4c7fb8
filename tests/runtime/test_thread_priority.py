from __future__ import annotations

import os
import threading

from app.runtime.thread_priority import NICENESS, background_threads, yield_to_requests


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


def test_the_threads_of_a_pool_yield() -> None:
    def priority() -> tuple[int, str]:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), threading.current_thread().name

    with background_threads(2, "loader") as pool:
        found = {pool.submit(priority).result() for _ in range(4)}
    assert all(niceness >= NICENESS and name.startswith("loader") for niceness, name in found)
