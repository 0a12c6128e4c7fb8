"""`SpacedAnswers` spaces out the answers of routes that anybody may ask for again and again.

To route and to write such an answer takes the event loop a millisecond, as much as two rankings. One client does not
notice the gaps; many at once wait for each other, and rankings do not wait for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from app.errors import Overloaded

MOST_WAIT_S = 2.0
"""Answers whose turn is further away than this are refused: their clients would have given up."""


class SpacedAnswers:
    """Tells each answer when to begin, in the order asked for. For one event loop."""

    def __init__(self, gap_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            gap_s: from the beginning of one answer to that of the next.
            clock: gives the time, in seconds.
        """
        self._gap_s = gap_s
        self._clock = clock
        self._next_at = 0.0

    async def next(self) -> None:
        """Wait until an answer may begin. Raises Overloaded where too many wait already."""
        now = self._clock()
        wait_s = max(0.0, self._next_at - now)
        if wait_s > MOST_WAIT_S:
            raise Overloaded("pages, metrics and descriptions are asked for more often than they can be answered")
        self._next_at = now + wait_s + self._gap_s
        if wait_s:
            await asyncio.sleep(wait_s)
