"""`LoopPacer`: background work on the event loop, in slices between requests, never more than these leave room for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from app.errors import DeadlinePassed

SHARE_OF_IDLE = 0.75
"""Share of the time that requests leave which the work may take; the rest lets requests begin at once."""
LEAST_SHARE = 0.1
"""Share of all time that the work may take however busy the loop is, because it must end some day."""
SLEEP_S = 0.001
"""Event loops count milliseconds: shorter sleeps are saved up."""
CATCH_UP_S = 0.003
"""Work done at a stretch after a sleep that grew long: a turn of an overloaded loop takes a tenth of a second."""
UNKNOWN_S = 0.01
"""A loop of which nothing is known is taken to have been busy for so long."""
MEMORY_S = 0.25
"""Measurements of requests from before this time count ever less: a machine may slow down from moment to moment."""
MOST_WAIT_S, REPLY_WAIT_S = 0.01, 0.0005
"""How long a slice of a long request waits for an idle loop, ten times as long as it takes and more, and on an idle
loop for a reply that a usual request is about to go on with."""
IDLE_TURNS_S = 0.0001
"""Two turns of a loop that take less processor time had no request to go on with."""


class LoopPacer:
    """Limits one piece of background work. Await `throttle()` after every slice of it.

    Work is counted in processor time, so that what other programs take of the core does not slow it down still more.
    How busy requests keep the loop is measured by what this thread works while the background work sleeps.
    """

    def __init__(self, worked_s: Callable[[], float] = time.thread_time) -> None:
        """Begin with the first slice.

        Args:
            worked_s: gives the processor time of this thread, less what it spends on looking for something to do.
        """
        self._worked_s = worked_s
        # Debts are counted in work, not in sleep, so that what a sleep has paid keeps its worth when the share changes.
        self._debt_s = self._least_debt_s = 0.0
        self._slept_s = self._busy_s = UNKNOWN_S
        self._began = worked_s()

    @property
    def share(self) -> float:
        """The share of the time that the work may take, from LEAST_SHARE to SHARE_OF_IDLE."""
        return max(LEAST_SHARE, SHARE_OF_IDLE * (1.0 - self._busy_s / self._slept_s))

    async def throttle(self) -> None:
        """Give the loop to requests, sleep for as long as the share asks for, and return when the loop is idle."""
        ended = self._worked_s()
        sleep_for_work, most_sleep_for_work = 1 / self.share - 1, 1 / LEAST_SHARE - 1
        self._debt_s += ended - self._began
        self._least_debt_s += ended - self._began
        before = time.perf_counter()
        if self._debt_s > 0:
            due_s = self._debt_s * sleep_for_work
            await asyncio.sleep(due_s if due_s >= SLEEP_S else 0)
        await until_idle(before + self._least_debt_s * most_sleep_for_work)
        slept_s = time.perf_counter() - before
        self._began = self._worked_s()
        self._debt_s = max(self._debt_s - slept_s / sleep_for_work, -CATCH_UP_S)
        self._least_debt_s = max(self._least_debt_s - slept_s / most_sleep_for_work, -CATCH_UP_S)
        self._slept_s += slept_s
        self._busy_s += min(slept_s, self._began - ended)
        if self._slept_s > MEMORY_S:
            self._busy_s *= MEMORY_S / self._slept_s
            self._slept_s = MEMORY_S


class AwaitedReplies:
    """Counts the replies of the store that usual requests wait for: each waits in a `with` block of this object."""

    count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *error: object) -> None:
        self.count -= 1


class SliceTurns:
    """Lets the slices of long requests run one at a time, in the order asked for, each once other requests rest.

    A slice waits a little for `replies`, too: a request that goes on with one would wait for the whole slice.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self.replies = AwaitedReplies()

    async def next(self, most_wait_s: float = MOST_WAIT_S) -> None:
        """Wait until no other slice is before this one, and the loop is idle or `most_wait_s` have passed."""
        async with self.turn(most_wait_s):
            pass

    async def next_before(self, due: float, what: str) -> None:
        """Wait for a turn in which `what` is to be done.

        Raises DeadlinePassed if `time.perf_counter()` is at `due` or later then, before anything is done in vain.
        """
        await self.next()
        if time.perf_counter() >= due:
            raise DeadlinePassed(f"the time was over before {what}")

    @contextlib.asynccontextmanager
    async def turn(self, most_wait_s: float = MOST_WAIT_S) -> AsyncIterator[None]:
        """Wait for a turn, and let no other slice begin before the block ends, as what is awaited in it makes work."""
        async with self._lock:
            began = time.perf_counter()
            due = began + most_wait_s
            await until_idle(due)
            reply_due = min(due, began + REPLY_WAIT_S)
            while self.replies.count and time.perf_counter() < reply_due:
                await until_idle(due)
            yield


async def until_idle(due: float) -> None:
    """Let requests go on until none can, or until `due`: a slice begun on an idle loop ends before the next request."""
    while time.perf_counter() < due:
        if await nothing_to_do():
            return


async def nothing_to_do() -> bool:
    """Return whether two turns of the loop found no request to go on with."""
    began = time.thread_time()
    await asyncio.sleep(0)  # the first turn reads what has come in,
    await asyncio.sleep(0)  # and the second begins on it
    return time.thread_time() - began < IDLE_TURNS_S
