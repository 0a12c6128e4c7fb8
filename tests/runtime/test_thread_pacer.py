"""A thread that loads beside requests is throttled as they need; one that loads alone is not."""

from __future__ import annotations

import threading
import time

from app.runtime.thread_pacer import in_background, throttle
from tests.work import spin


def wall_of(slices: int) -> float:
    """Return the seconds that slices of 1 ms of processor time take on a thread in the background."""
    taken = 0.0

    def work() -> None:
        nonlocal taken
        began = time.perf_counter()
        with in_background():
            for _ in range(slices):
                spin(0.001)
                throttle()
        taken = time.perf_counter() - began

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return taken


def test_beside_busy_threads_it_takes_a_small_share() -> None:
    done = threading.Event()

    def requests() -> None:
        while not done.is_set():
            spin(0.002)
            time.sleep(0.0005)

    busy = threading.Thread(target=requests)
    busy.start()
    try:
        assert wall_of(40) > 0.04 / 0.4
    finally:
        done.set()
        busy.join()


def test_alone_it_does_not_pause_at_all() -> None:
    slept: list[float] = []
    sleep = time.sleep
    try:
        time.sleep = slept.append  # type: ignore[assignment]
        wall_of(40)
    finally:
        time.sleep = sleep
    assert slept == []


def test_outside_it_costs_nothing_and_ends_with_the_block() -> None:
    with in_background():
        pass
    began = time.thread_time()
    for _ in range(1000):
        throttle()
    assert time.thread_time() - began < 0.05
