"""`ReplyTime`: how long the feature store takes to answer, as far as requests can tell that wait for other work too."""

from __future__ import annotations

import math
from collections.abc import Callable

WINDOW_S = 1.0
"""How long the least counts: this long at least, and twice as long at most."""


class ReplyTime:
    """The least that a request waited for the store lately: on a busy loop a reply that has come waits, too."""

    def __init__(self, now: Callable[[], float]) -> None:
        """
        Args:
            now: gives the time.
        """
        self._now = now
        self._window_began = now()
        self._least_now_s = self._least_before_s = math.inf

    @property
    def least_s(self) -> float:
        """Return the seconds; 0 while no request has waited."""
        least = min(self._least_now_s, self._least_before_s)
        return least if least < math.inf else 0.0

    def note(self, seconds: float) -> None:
        """Note how long a request waited."""
        now = self._now()
        if now - self._window_began > WINDOW_S:
            self._window_began = now
            self._least_before_s, self._least_now_s = self._least_now_s, seconds
        elif seconds < self._least_now_s:
            self._least_now_s = seconds
