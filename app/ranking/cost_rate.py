"""`CostRate` measures the processor time that a unit of cost takes lately, while several requests are at work."""

from __future__ import annotations

from collections.abc import Callable

FIRST_SECONDS_PER_COST = 2e-6
SAMPLE = 16
"""Requests over which it is measured."""
WEIGHT = 0.2
"""Weight of the newest sample."""


class CostRate:
    """Measures it on one thread."""

    def __init__(self, worked_s: Callable[[], float]) -> None:
        """
        Args:
            worked_s: gives the processor time of this thread.
        """
        self.seconds_per_cost = FIRST_SECONDS_PER_COST
        self._worked_s = worked_s
        self._requests = 0
        self._cost = 0.0
        self._began: float | None = None
        """Of the sample, by `worked_s`; None while there is none."""

    def note(self, cost: float, others: int) -> None:
        """Note that a request of this cost has ended, and how many others are at work."""
        self._requests += 1
        self._cost += cost
        if others < 2:  # what the loop does between requests would be taken for theirs
            self._began = None
        elif self._began is None:
            self._begin()
        elif self._requests >= SAMPLE:
            sample = (self._worked_s() - self._began) / self._cost
            self.seconds_per_cost += WEIGHT * (sample - self.seconds_per_cost)
            self._begin()

    def _begin(self) -> None:
        self._requests, self._cost = 0, 0.0
        self._began = self._worked_s()
