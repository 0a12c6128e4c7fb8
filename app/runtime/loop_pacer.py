"""Background work on the event loop: in slices, between requests, and never more than these leave room for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

SHARE_OF_IDLE = 0.75
"""Of the time that requests leave; the rest is their room to come at once."""
LEAST_SHARE = 0.1
"""Of all time, however busy the loop is: the work must end some day."""
SLEEP_S = 0.001
"""Event loops count milliseconds: shorter rests are saved up."""
CATCH_UP_S = 0.003
"""Worked at a stretch after a rest that grew long: a turn of an overloaded loop takes a tenth of a second."""
UNKNOWN_S = 0.01
"""A loop of which nothing is known is taken to have been busy for so long."""
LATELY_S = 0.25
"""What requests took before that counts ever less: a machine may be slower from one moment to the next."""
NOTHING_S = 0.0001
"""Two turns of a loop that take less processor time had no request to go on with."""


class LoopPacer:
    """Call `throttle()` after every slice of work; it gives the loop to requests, sleeps what the share asks for, and
    returns when the loop has nothing to do.

    Work is counted in processor time, so that what other programs take of the core does not make it slower still. How
    busy requests keep the loop is what this thread worked while the work rests.
    """

    def __init__(self, worked_s: Callable[[], float] = time.thread_time) -> None:
        """Args: worked_s: processor time of this thread, without what it spends on looking for something to do."""
        self._worked_s = worked_s
        # Owed in work and not in rest: what a rest has paid for stays worth as much when the share changes.
        self._debt_s = self._least_debt_s = 0.0
        self._rested_s = self._busy_s = UNKNOWN_S
        self._began = worked_s()

    @property
    def share(self) -> float:
        """Of the time, that the work may take."""
        return max(LEAST_SHARE, SHARE_OF_IDLE * (1.0 - self._busy_s / self._rested_s))

    async def throttle(self) -> None:
        ended = self._worked_s()
        rest_for_work, most_rest = 1 / self.share - 1, 1 / LEAST_SHARE - 1
        self._debt_s += ended - self._began
        self._least_debt_s += ended - self._began
        before = time.perf_counter()
        if self._debt_s > 0:
            due_s = self._debt_s * rest_for_work
            await asyncio.sleep(due_s if due_s >= SLEEP_S else 0)
        await _lull(before + self._least_debt_s * most_rest)
        rested = time.perf_counter() - before
        self._began = self._worked_s()
        self._debt_s = max(self._debt_s - rested / rest_for_work, -CATCH_UP_S)
        self._least_debt_s = max(self._least_debt_s - rested / most_rest, -CATCH_UP_S)
        self._rested_s += rested
        self._busy_s += min(rested, self._began - ended)
        if self._rested_s > LATELY_S:
            self._busy_s *= LATELY_S / self._rested_s
            self._rested_s = LATELY_S


async def _lull(due: float) -> None:
    """Let requests go on until none can, or until then: a slice that begins in a lull is done when the next comes."""
    while time.perf_counter() < due:
        if await nothing_to_do():
            return


async def nothing_to_do() -> bool:
    """Whether two turns of the loop found no request to go on with."""
    began = time.thread_time()
    await asyncio.sleep(0)  # what has come in is read,
    await asyncio.sleep(0)  # and begun
    return time.thread_time() - began < NOTHING_S
