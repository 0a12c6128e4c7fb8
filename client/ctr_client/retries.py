"""When a call is tried again: a generator that knows no HTTP library, so that threads and asyncio share it.

`attempts` yields what to do next: `Attempt` to send the request once more, and `Pause` to wait. Whoever drives it sends
back an `Outcome` after an attempt.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from ctr_client.errors import CtrClientError, TimedOut, Unavailable, Unreachable

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0


class RetryBudget:
    """Bounds the retries of all calls together to a share of the calls; safe to use from any thread."""

    def __init__(self, share: float = 0.2, reserve: float = 10.0) -> None:
        """
        Args:
            share: retries a call earns.
            reserve: retries that may be saved, and that there are from the start.
        """
        self._share = share
        self._reserve = reserve
        self._saved = reserve
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Count a call."""
        with self._lock:
            self._saved = min(self._reserve, self._saved + self._share)

    def spend(self) -> bool:
        """Take a retry; return False if there is none left."""
        with self._lock:
            if self._saved < 1:
                return False
            self._saved -= 1
            return True


@dataclass(frozen=True, slots=True)
class Attempt:
    """Send the request; `left_s` is what is left of the call's time."""

    left_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt."""

    seconds: float


def attempts(
    timeout_s: float, budget: RetryBudget, most: int, now: Callable[[], float] = time.monotonic
) -> Generator[Attempt | Pause, CtrClientError | None, None]:
    """Yield what to do until an attempt succeeds.

    After an `Attempt` the driver sends None for an answer, or the error that it met; it is raised here if it is final.

    Args:
        timeout_s: for the call as a whole.
        most: attempts at most.
    """
    budget.earn()
    due = now() + timeout_s
    for number in range(1, most + 1):
        left_s = due - now()
        if left_s <= 0:
            raise TimedOut(f"no answer in {timeout_s:g} s")
        error = yield Attempt(left_s)
        if error is None:
            return
        if not isinstance(error, Unavailable | Unreachable) or number == most:
            raise error
        pause_s = min(FIRST_PAUSE_S * 2 ** (number - 1), LONGEST_PAUSE_S)
        if isinstance(error, Unavailable):
            pause_s = max(pause_s, error.retry_after_s)
        pause_s *= 1 + random.random() / 2
        if pause_s >= due - now() or not budget.spend():
            raise error
        yield Pause(pause_s)
