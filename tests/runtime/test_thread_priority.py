from __future__ import annotations

import os
import threading

from app.runtime.thread_priority import yield_to_requests


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
