"""`Admission` refuses at once the requests that would wait too long, and says when to come back.

On one event loop waiting is work that stands before a request. It is measured twice: how long ago the request's first
byte was read, and what is at work already, in requests' cost times the processor time that a unit of cost has taken
lately, less what is done of it while the request itself waits for the feature store. There is no queue: a request is
begun or refused. A burst, or what a stall has held up, is let through; only when most requests of an interval were late
is the process overloaded, and refuses each that is. Once it has refused one it works for a while on so
few at a time as keep it busy: more would only wait for each other (docs/adr/0025).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from app.errors import DeadlinePassed, Overloaded
from app.ranking.explain import MAX_EXPLAINED
from app.ranking.reply_time import ReplyTime
from app.ranking.request import RankRequest

REQUEST_COST, BYTE_COST = 150.0, 0.1
"""The cost of a request beside its candidates, and before it is decoded of each byte; that of a cached candidate is 1,
about a microsecond."""
OVERRIDE_COST, EXPLAIN_COST = 10.0, 1500.0
"""The cost of an item with features sent for it, and of an item that is explained: 1.5 ms with 32 fields."""
HEAVY_COST = 3000.0
"""From this cost on a request is heavy: it is worked on in slices (`app.runtime.loop_pacer.SliceTurns`), so that others
wait for one slice of it at most, and it does not count as work before them."""
HEAVY_LIMIT = 8
"""Heavy requests at work at once."""
ALWAYS_ADMITTED = 8
"""So many requests may be at work whatever they are expected to take: a burst, or the first after a slow spell."""
FEW = 2.0
"""So few requests are at work at once in an overloaded process, if they keep it busy: one is scored while the store
answers for the other."""
FEW_FOR_S = 3.0
"""For so long after a refusal; then it is seen anew whether any is late where more are begun."""
TOO_IDLE, BUSY_ENOUGH = 0.85, 0.92
"""Shares of the time that a process works. Below the first, as where the store takes long, more requests are at work;
from the second on, fewer."""
MORE, FEWER, LOOKED_AT_EVERY_S = 1.5, 0.85, 0.1
"""By which factors, and how often at most."""
WAIT_WHILE_IDLE = 4.0
"""So many times the longest wait is let through meanwhile: some of the store's answers may take that much longer."""
INTERVAL_S = 0.5
LATE_SHARE, NORMAL_SHARE = 0.8, 0.05
"""Overload begins after an interval in which so many of the requests would have waited too long, and ends after one in
which at most so few would have."""
FIRST_SECONDS_PER_COST = 2e-6
SAMPLE = 16
"""Requests over which the seconds of a unit of cost are measured."""
WEIGHT = 0.2
"""Weight of the newest sample."""


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
        self.seconds_per_cost = FIRST_SECONDS_PER_COST
        self._max_wait_s = max_wait_s
        self._worked_s = worked_s
        self._now = now
        self.overloaded = False
        """Whether most requests would wait too long, so that those which would are refused."""
        self._interval_began = now()
        self._arrivals = self._late_arrivals = 0
        self._few_until = 0.0
        """Until when an overloaded process works on `_few` requests at once."""
        self._few = FEW
        self._looked_at, self._worked_by_then = now(), worked_s()
        self._before_others, self._backlog = 0, 0.0
        """The requests at work that are not heavy, and let no others go first, and what they cost."""
        self._announced, self._announced_cost = 0, 0.0
        """Requests that `sheds` has let through and the event loop has not begun, and what they cost."""
        self._sampled_requests = 0
        self._sampled_cost = 0.0
        self._sample_began: float | None = None
        self._reply_time = ReplyTime(now)

    def enter(self, cost: float, waited_s: float, left_s: float) -> float:
        """Admit a request and return its cost, for `leave`.

        Args:
            cost: what the request is expected to cost.
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
        if self._refuses(before, wait_s) or (before >= ALWAYS_ADMITTED and wait_s > left_s):
            raise Overloaded(f"the request would wait {wait_s * 1000:.0f} ms for those before it")
        cost = min(cost, HEAVY_COST - 1)  # whether it is heavy shows once it is decoded
        self.inflight += 1
        self._before_others += 1
        self._backlog += cost
        return cost

    def sheds(self, size: int) -> bool:
        """Return whether a request that was just read, of so many bytes, is refused before anything of it is parsed.

        If not, it counts as admitted until the event loop begins on it: many requests are read before the first of
        them begins.
        """
        if not self.overloaded:
            return False
        wait_s = self._wait_for_s(self._backlog + self._announced_cost)
        if self._refuses(self._before_others + self._announced, wait_s):
            return True
        if not self._announced:
            asyncio.get_running_loop().call_soon(self._forget_announced)
        self._announced += 1
        self._announced_cost += min(REQUEST_COST + BYTE_COST * size, HEAVY_COST - 1)
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
            if self.inflight > 1 and decoded_cost * self.seconds_per_cost > left_s:
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
        self._sampled_requests += 1
        self._sampled_cost += cost
        if self.inflight < 2:  # what the loop does between requests would be taken for theirs
            self._sample_began = None
        elif self._sample_began is None:
            self._begin_sample()
        elif self._sampled_requests >= SAMPLE:
            sample = (self._worked_s() - self._sample_began) / self._sampled_cost
            self.seconds_per_cost += WEIGHT * (sample - self.seconds_per_cost)
            self._begin_sample()

    def _forget_announced(self) -> None:
        self._announced, self._announced_cost = 0, 0.0

    def _wait_for_s(self, cost: float) -> float:
        """Return how long a request waits for work of this cost, some of which is done while the store answers it."""
        return max(0.0, cost * self.seconds_per_cost - self._reply_time.least_s)

    def _adapt_few(self, now: float, before: int) -> None:
        """Let so many requests be at work as keep this process busy; `before` are now."""
        passed_s = now - self._looked_at
        if passed_s < LOOKED_AT_EVERY_S:
            return
        worked_s = self._worked_s()
        if passed_s < 2 * LOOKED_AT_EVERY_S:
            share = (worked_s - self._worked_by_then) / passed_s
            if share < TOO_IDLE and before >= FEWER * self._few:
                self._few = min(MORE * self._few, self.limit)
            elif share > BUSY_ENOUGH:
                self._few = max(FEWER * self._few, FEW)
        self._looked_at, self._worked_by_then = now, worked_s

    def _refuses(self, before: int, wait_s: float) -> bool:
        """Return whether a request is refused that so many are before and that would wait so long, and count it."""
        now = self._now()
        if self.overloaded and now < self._few_until:
            self._adapt_few(now, before)
            return before >= self._few or (before >= ALWAYS_ADMITTED and wait_s > WAIT_WHILE_IDLE * self._max_wait_s)
        late = before >= ALWAYS_ADMITTED and wait_s > self._max_wait_s
        self._arrivals += 1
        self._late_arrivals += late
        if now - self._interval_began > INTERVAL_S:
            share = NORMAL_SHARE if self.overloaded else LATE_SHARE
            lasting = now - self._interval_began < 2 * INTERVAL_S
            self.overloaded = lasting and self._late_arrivals > share * self._arrivals
            self._interval_began, self._arrivals, self._late_arrivals = now, 0, 0
        if not (late and self.overloaded):
            return False
        self._few_until = self._interval_began = now + FEW_FOR_S
        self._arrivals = self._late_arrivals = 0
        return True

    def _begin_sample(self) -> None:
        self._sampled_requests, self._sampled_cost = 0, 0.0
        self._sample_began = self._worked_s()


def cost_of(request: RankRequest) -> float:
    """Return what a request costs, in cached candidates; of what the cache lacks nothing is known yet."""
    cost = REQUEST_COST + len(request.item_ids)
    if request.item_features:
        cost += OVERRIDE_COST * sum(map(bool, request.item_features.values()))
    if request.explain:
        cost += EXPLAIN_COST * min(MAX_EXPLAINED, len(request.item_ids), request.top_k or MAX_EXPLAINED)
    return cost
