"""`KeptAnswers`: answers of one route that take long to make, and that everybody may ask for.

Whoever asks now and then has an answer made for him. Where more is asked than MAX_SHARE of a core can make, the last
answer is given again, so that scrapers, dashboards and the curious cannot take the process from its requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from app.api.problems import documented_problems
from app.errors import Overloaded
from app.runtime.thread_priority import on_background_thread

MAX_SHARE = 0.005
"""Share of a core that the making may take in the long run. Requests meanwhile contend with it for the interpreter's
lock, and of 1 % of them the 99th percentile is made."""
BURST_S = 2.0
"""How far ahead of MAX_SHARE the making may be: after a quiet time, what it gives in so long is used at once."""
MAX_KEPT = 16
TOO_OFTEN = documented_problems({503: "Asked for more often than it can be answered"})
"""What OpenAPI says of it."""

Answer = TypeVar("Answer")


class KeptAnswers(Generic[Answer]):
    """The last answers of a route by what was asked, for use on one event loop."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, worked: Callable[[], float] = time.thread_time
    ) -> None:
        """
        Args:
            clock: gives the time, in seconds.
            worked: gives the processor time of the calling thread, in seconds; time in which it is held up costs
                requests nothing.
        """
        self._clock, self._worked = clock, worked
        self._kept: dict[Hashable, Answer] = {}
        self._making: dict[Hashable, asyncio.Task[Answer]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._paid_at = 0.0
        """Time at which the making so far will have taken MAX_SHARE of a core."""

    async def get(self, asked: Hashable, make: Callable[[], Answer]) -> Answer:
        """Return the answer to what was asked, which `make` makes on a thread; who asks meanwhile waits for the same.

        Raises Overloaded where there is no answer to give again, and no time to make one.
        """
        making = self._making.get(asked)
        if making is None:
            if self._exhausted() and asked in self._kept:
                return self._kept[asked]
            making = self._making[asked] = asyncio.create_task(self._make(asked, make))
        return await asyncio.shield(making)

    async def _make(self, asked: Hashable, make: Callable[[], Answer]) -> Answer:
        try:
            async with self._one_at_a_time:
                if self._exhausted():
                    raise Overloaded("this is asked for more often than it can be answered")
                answer = await on_background_thread(self._make_and_count, self._clock(), make)
        finally:
            del self._making[asked]
        self._kept.pop(asked, None)
        self._kept[asked] = answer
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return answer

    def _make_and_count(self, began: float, make: Callable[[], Answer]) -> Answer:
        worked = self._worked()
        try:
            return make()
        finally:
            self._paid_at = max(self._paid_at, began) + (self._worked() - worked) / MAX_SHARE

    def _exhausted(self) -> bool:
        return self._paid_at > self._clock() + BURST_S
