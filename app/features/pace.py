"""Background work on the event loop: in slices, and never more of them than the requests leave room for."""

from __future__ import annotations

import asyncio
import time

SHARE_OF_IDLE = 0.5
"""Of the time that requests leave; the rest is their room to come at once."""
LEAST_SHARE = 0.1
"""Of all time, however busy the loop is: the work must end some day."""
SLEEP_S = 0.001
"""Event loops count milliseconds: shorter rests are saved up."""
CATCH_UP_S = 0.003
"""Worked at a stretch after a rest that grew long: a turn of an overloaded loop takes a tenth of a second."""
UNKNOWN_S = 0.01
"""A loop of which nothing is known is taken to have been busy for so long."""


class Pace:
    """Call `rest()` after every slice of work; it gives the loop to requests, and sleeps what the share asks for.

    Work is counted in processor time, so that what other programs take of the core does not make it slower still. How
    busy requests keep the loop is this thread's processor time while the work rests.
    """

    def __init__(self) -> None:
        self._debt_s = 0.0
        self._rested_s = self._busy_s = UNKNOWN_S
        self._began = time.thread_time()

    @property
    def share(self) -> float:
        """Of the time, that the work may take."""
        return max(LEAST_SHARE, SHARE_OF_IDLE * (1.0 - self._busy_s / self._rested_s))

    async def rest(self) -> None:
        ended = time.thread_time()
        rest_for_work = 1 / self.share - 1
        self._debt_s += (ended - self._began) * rest_for_work
        self._began = ended
        if self._debt_s <= 0:
            return
        before = time.perf_counter()
        await asyncio.sleep(self._debt_s if self._debt_s >= SLEEP_S else 0)
        rested = time.perf_counter() - before
        self._began = time.thread_time()
        self._debt_s = max(self._debt_s - rested, -CATCH_UP_S * rest_for_work)
        self._rested_s += rested
        self._busy_s += min(rested, self._began - ended)
