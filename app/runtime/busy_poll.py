"""Looking for the next request instead of sleeping until it comes.

A core that sleeps has to be woken, through the hypervisor where there is one, and finds its caches cold; on a shared
machine others may have it by then. Network cards are polled like this too (Linux: `net.core.busy_poll`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from app.runtime.loop_pacer import IDLE_TURNS_S

TURN_S = IDLE_TURNS_S / 2
"""A turn of the loop that had a request to go on with takes more processor time."""


class BusyPoll:
    """Keeps the event loop turning for some time after each answer.

    Each turn offers the core to whoever else waits for it: a kernel may otherwise leave a store that shares the core
    waiting for its next tick, milliseconds away.
    """

    def __init__(self, seconds: float) -> None:
        """Args: seconds: after the last answer; 0 lets the loop sleep at once."""
        self._seconds = seconds
        self._until = 0.0
        self._turning = False
        self._turned_cpu_s = self._polled_s = 0.0
        self._yield: Callable[[], None] = getattr(os, "sched_yield", lambda: None)

    def on_answer(self) -> None:
        """A request of this loop is done."""
        if self._seconds:
            self._until = time.perf_counter() + self._seconds
            if not self._turning:
                self._turning = True
                self._turned_cpu_s = time.thread_time()
                asyncio.get_running_loop().call_soon(self._turn)

    def worked_s(self) -> float:
        """Processor time of this thread, without that of turns that found nothing to do. Only differences count."""
        return time.thread_time() - self._polled_s

    def _turn(self) -> None:
        cpu_s = time.thread_time()
        if cpu_s - self._turned_cpu_s < TURN_S:
            self._polled_s += cpu_s - self._turned_cpu_s
        self._turned_cpu_s = cpu_s
        self._turning = time.perf_counter() < self._until
        if self._turning:
            self._yield()
            asyncio.get_running_loop().call_soon(self._turn)
