"""`Overload` finds out whether a process has more to do than it can, and then which requests it refuses.

A burst, or what a stall has held up, is let through; only when most requests of an interval were late is the process
overloaded, and refuses each that is. Once it has refused one it works for a while on so few at a time as keep it busy:
more would only wait for each other (docs/adr/0025). Where less is asked than it can do, as after a stall, it ends that.
"""

from __future__ import annotations

from collections.abc import Callable

ALWAYS_ADMITTED = 8
"""So many requests may be at work whatever they are expected to take: a burst, or the first after a slow spell."""
LEAST_AT_ONCE = 2.0
"""So few requests are at work at once in an overloaded process, if they keep it busy: one is scored while the store
answers for the other."""
FEW_FOR_S = 3.0
"""For so long after a refusal, unless less is asked than can be done; then it is seen anew whether any is late where
more are begun."""
TOO_IDLE, BUSY_ENOUGH = 0.85, 0.92
"""Shares of the time that a process works. Below the first, as where the store takes long, more requests are at work;
from the second on, fewer."""
GROWTH, DECLINE, ADAPTED_EVERY_S = 1.5, 0.85, 0.1
"""By which factors, and how often at most."""
ENOUGH_ASKED = 0.5
"""Of a process that has as much to do as it can, so many times as many requests find others at work as are admitted, or
more. What comes while one is worked on is looked at afterwards and may find none, so it is not 1: simulated, 0.45 where
nine tenths of that are asked, 0.55 where all of it is."""
WAIT_WHILE_IDLE = 4.0
"""So many times the longest wait is let through meanwhile: some of the store's answers may take that much longer."""
INTERVAL_S = 0.5
LATE_SHARE, NORMAL_SHARE = 0.8, 0.05
"""Overload begins after an interval in which so many of the requests would have waited too long, and ends after one in
which at most so few would have."""


class Overload:
    """Judges the requests of one event loop."""

    def __init__(self, limit: int, max_wait_s: float, worked_s: Callable[[], float], now: Callable[[], float]) -> None:
        """
        Args:
            limit: requests at work at once, whatever they cost.
            max_wait_s: how long a request may have to wait for the work before it where others wait so long, too.
            worked_s: gives the processor time of this thread.
            now: gives the time.
        """
        self.is_on = False
        """Whether most requests would wait too long, so that those which would are refused."""
        self._limit = limit
        self._max_wait_s = max_wait_s
        self._worked_s = worked_s
        self._now = now
        self._interval_began = now()
        self._arrivals = self._late_arrivals = 0
        self._few_until = 0.0
        """Until when `_at_once` requests are at work at most."""
        self._at_once = LEAST_AT_ONCE
        self._adapted_at, self._worked_by_then = now(), worked_s()
        self._counted_from, self._asked, self._admitted, self._found_idle = 0.0, 0, 0, 0
        """Since when the requests are counted that came while few are at work, and of these found none at work."""

    def refuses(self, before: int, wait_s: float) -> bool:
        """Return whether a request is refused that so many are before and that would wait so long, and count it."""
        now = self._now()
        if self.is_on and now < self._few_until:
            self._adapt(now, before)
            refused = before >= self._at_once or (
                before >= ALWAYS_ADMITTED and wait_s > WAIT_WHILE_IDLE * self._max_wait_s
            )
            self._end_if_idle(now, before, refused=refused)
            return refused
        late = before >= ALWAYS_ADMITTED and wait_s > self._max_wait_s
        self._arrivals += 1
        self._late_arrivals += late
        if now - self._interval_began > INTERVAL_S:
            share = NORMAL_SHARE if self.is_on else LATE_SHARE
            lasting = now - self._interval_began < 2 * INTERVAL_S
            self.is_on = lasting and self._late_arrivals > share * self._arrivals
            self._interval_began, self._arrivals, self._late_arrivals = now, 0, 0
        if not (late and self.is_on):
            return False
        self._few_until = self._interval_began = now + FEW_FOR_S
        self._arrivals = self._late_arrivals = 0
        self._counted_from, self._asked, self._admitted, self._found_idle = now, 0, 0, 0
        return True

    def _end_if_idle(self, now: float, before: int, *, refused: bool) -> None:
        """End the overload after an interval in which less was asked than this process can do, as after a stall."""
        self._asked += 1
        self._admitted += not refused
        self._found_idle += before == 0
        if now - self._counted_from <= INTERVAL_S:
            return
        if self._asked - self._found_idle < ENOUGH_ASKED * self._admitted:
            self.is_on = False
            self._interval_began, self._arrivals, self._late_arrivals = now, 0, 0
        self._counted_from, self._asked, self._admitted, self._found_idle = now, 0, 0, 0

    def _adapt(self, now: float, before: int) -> None:
        """Let so many requests be at work at once as keep this process busy; `before` are now."""
        passed_s = now - self._adapted_at
        if passed_s < ADAPTED_EVERY_S:
            return
        worked_s = self._worked_s()
        if passed_s < 2 * ADAPTED_EVERY_S:
            share = (worked_s - self._worked_by_then) / passed_s
            if share < TOO_IDLE and before >= DECLINE * self._at_once:
                self._at_once = min(GROWTH * self._at_once, self._limit)
            elif share > BUSY_ENOUGH:
                self._at_once = max(DECLINE * self._at_once, LEAST_AT_ONCE)
        self._adapted_at, self._worked_by_then = now, worked_s
