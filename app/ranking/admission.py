"""`Admission` refuses at once the requests that would wait too long, and says when to come back.

On one event loop waiting is work that stands before a request. It is measured twice: how long ago the request's first
byte was read, and what is at work already, in requests' cost (`request_cost`) times the processor time that a unit of
cost has taken lately (`cost_rate`), less what is done of it while the request itself waits for the feature store. There
is no queue: a request is begun or refused, and refused only while the process is overloaded (`overload`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from app.errors import DeadlinePassed, Overloaded
from app.ranking.cost_rate import CostRate
from app.ranking.overload import ALWAYS_ADMITTED, Overload
from app.ranking.reply_time import ReplyTime
from app.ranking.request_cost import HEAVY_COST, cost_of_bytes

HEAVY_LIMIT = 8
"""Heavy requests at work at once."""


class Admission:
    """Counts the requests at work and what they cost. For one event loop."""

    def __init__(
        self,
        limit: int,
        max_wait_s: float,
        worked_s: Callable[[], float] = time.thread_time,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        Args:
            limit: requests at work at once, whatever they cost.
            max_wait_s: how long a request may have to wait for the work before it where others wait so long, too.
            worked_s: gives the processor time of this thread.
            now: gives the time.
        """
        self.limit = limit
        self.inflight = 0
        """Requests at work."""
        self.heavy = 0
        """Heavy requests among them."""
        self._overload = Overload(limit, max_wait_s, worked_s, now)
        self._rate = CostRate(worked_s)
        self._before_others, self._backlog = 0, 0.0
        """The requests at work that are not heavy, and let no others go first, and what they cost."""
        self._announced, self._announced_cost = 0, 0.0
        """Requests that `sheds` has let through and the event loop has not begun, and what they cost."""
        self._reply_time = ReplyTime(now)

    @property
    def overloaded(self) -> bool:
        """Whether most requests would wait too long, so that those which would are refused."""
        return self._overload.is_on

    def enter(self, cost: float, waited_s: float, left_s: float) -> float:
        """Admit a request and return its cost, for `leave`.

        Args:
            cost: what the request is expected to cost, less than HEAVY_COST: whether it is heavy shows once it is
                decoded.
            waited_s: seconds since its first byte was read.
            left_s: seconds until its answer is no longer wanted.

        Raises:
            DeadlinePassed: its time is over already.
            Overloaded: too many requests are at work, or the request would wait too long.
        """
        if left_s <= 0:
            raise DeadlinePassed(f"{waited_s * 1000:.0f} ms went by before the request was begun")
        if self.inflight >= self.limit:
            raise Overloaded(f"{self.limit} requests are at work already")
        before, wait_s = self._before_others, waited_s
        if before >= ALWAYS_ADMITTED:
            wait_s += self._wait_for_s(self._backlog)
        if self._overload.refuses(before, wait_s) or (before >= ALWAYS_ADMITTED and wait_s > left_s):
            raise Overloaded(f"the request would wait {wait_s * 1000:.0f} ms for those before it")
        self.inflight += 1
        self._before_others += 1
        self._backlog += cost
        return cost

    def sheds(self, size: int) -> bool:
        """Return whether a request that was just read, of so many bytes, is refused before anything of it is parsed.

        If not, it counts as admitted until the event loop begins on it: many requests are read before the first of
        them begins.
        """
        if not self._overload.is_on:
            return False
        wait_s = self._wait_for_s(self._backlog + self._announced_cost)
        if self._overload.refuses(self._before_others + self._announced, wait_s):
            return True
        if not self._announced:
            asyncio.get_running_loop().call_soon(self._forget_announced)
        self._announced += 1
        self._announced_cost += cost_of_bytes(size)
        return False

    def let_others_first(self, cost: float) -> None:
        """Take the cost of an admitted request off the work before others, because it waits for a turn."""
        self._before_others -= 1
        self._backlog -= cost

    def correct(self, cost: float, decoded_cost: float, left_s: float, *, is_before_others: bool = True) -> float:
        """Replace the cost of an admitted request, and return the new one, for `leave`.

        Args:
            is_before_others: whether the request counts as work before others; not after `let_others_first`.

        Raises Overloaded, and leaves the cost as it is, if the request is heavy and too many of those are at work.
        """
        if decoded_cost >= HEAVY_COST:
            if self.heavy >= HEAVY_LIMIT:
                raise Overloaded(f"{HEAVY_LIMIT} requests as large as this one are at work already")
            if self.inflight > 1 and decoded_cost * self._rate.seconds_per_cost > left_s:
                raise Overloaded("a request as large as this one takes longer than its deadline leaves")
            self.heavy += 1
            if is_before_others:
                self._before_others -= 1
                self._backlog -= cost
        elif is_before_others:
            self._backlog += decoded_cost - cost
        return decoded_cost

    def leave(self, cost: float, *, is_before_others: bool = True, reply_s: float | None = None) -> None:
        """Note that a request has ended.

        Args:
            is_before_others: that of `correct`.
            reply_s: seconds that it waited for the feature store; None if that is not known.
        """
        self.inflight -= 1
        if reply_s is not None and is_before_others:
            self._reply_time.note(reply_s)
        if cost >= HEAVY_COST:
            self.heavy -= 1
        elif is_before_others:
            self._before_others -= 1
            self._backlog -= cost
        self._rate.note(cost, self.inflight)

    def _forget_announced(self) -> None:
        self._announced, self._announced_cost = 0, 0.0

    def _wait_for_s(self, cost: float) -> float:
        """Return how long a request waits for work of this cost, some of which is done while the store answers it."""
        return max(0.0, cost * self._rate.seconds_per_cost - self._reply_time.least_s)
