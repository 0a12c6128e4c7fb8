"""`KeyRates` bounds what each API key may ask for, so that no caller starves the others: a bucket of tokens a key."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from app.errors import RateLimited

BODY_BYTES = 8000
"""A larger body counts as so many requests as it has times so many bytes: what a request costs grows with it."""
BURST_S = 1.0
"""A key that was silent may ask at once for what it may ask for in so many seconds."""


class KeyRates:
    """A bucket of tokens for each key, a token for a request. For one event loop."""

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            rate: requests a second of a key.
            now: gives the time.
        """
        self._rate = rate
        self._burst = max(1.0, rate * BURST_S)
        self._now = now
        self._buckets: dict[bytes, tuple[float, float]] = {}
        """The tokens of each key, below 0 after a large request, and when they were counted."""

    def take(self, key: bytes, size: int) -> None:
        """Take the tokens of a request with a body of so many bytes.

        Args:
            key: one of the service's keys, so that there are no more buckets than keys.

        Raises RateLimited if the key has none left.
        """
        now = self._now()
        tokens, counted_at = self._buckets.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - counted_at) * self._rate)
        if tokens < 1.0:
            self._buckets[key] = tokens, now
            error = RateLimited("the key's rate is used up; send less, or have CTR_KEY_RATE raised")
            error.retry_after_s = math.ceil((1.0 - tokens) / self._rate)
            raise error
        self._buckets[key] = tokens - max(1.0, size / BODY_BYTES), now
