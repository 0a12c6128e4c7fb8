"""`BusyPoll` keeps a worker looking for the next request instead of sleeping until it comes.

A core that sleeps has to be woken, through a hypervisor if there is one, and finds its caches cold; on a shared
machine another program may have it by then. Linux polls network cards in the same way (`net.core.busy_poll`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from app.runtime.loop_pacer import IDLE_TURNS_S

TURN_S = IDLE_TURNS_S / 2
"""Processor time of a turn of the loop; a turn that had a request to go on with takes more."""


class BusyPoll:
    """Keeps the event loop turning for some time after each answer.

    Each turn offers the core to other programs that wait for it: otherwise a kernel may leave a store that shares the
    core waiting for the next tick, milliseconds away.
    """

    def __init__(self, seconds: float, thread_s: Callable[[], float] = time.thread_time) -> None:
        """
        Args:
            seconds: how long to keep looking after an answer; 0 lets the loop sleep at once.
            thread_s: gives the processor time of the loop's thread.
        """
        self._seconds = seconds
        self._thread_s = thread_s
        self._until = 0.0
        self._turning = False
        self._turned_cpu_s = self._polled_s = 0.0
        self._yield: Callable[[], None] = getattr(os, "sched_yield", lambda: None)

    def on_answer(self) -> None:
        """Look for the next request from now on; called when a request of this loop is done."""
        if self._seconds:
            self._until = time.perf_counter() + self._seconds
            if not self._turning:
                self._turning = True
                self._turned_cpu_s = self._thread_s()
                asyncio.get_running_loop().call_soon(self._turn)

    def worked_s(self) -> float:
        """Return this thread's processor time, less that of turns with nothing to do; only differences count."""
        return self._thread_s() - self._polled_s

    def _turn(self) -> None:
        cpu_s = self._thread_s()
        if cpu_s - self._turned_cpu_s < TURN_S:
            self._polled_s += cpu_s - self._turned_cpu_s
        self._turned_cpu_s = cpu_s
        self._turning = time.perf_counter() < self._until
        if self._turning:
            self._yield()
            asyncio.get_running_loop().call_soon(self._turn)
