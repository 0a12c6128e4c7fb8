"""How many requests may be at work at once: more are refused at once instead of waiting."""

from __future__ import annotations

from app.errors import Overloaded


class Admission:
    """A counter, not a queue: on one event loop a request that waits only makes the ones behind it late as well."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inflight = 0

    def __enter__(self) -> None:
        """Raises Overloaded."""
        if self.inflight >= self.limit:
            raise Overloaded(f"{self.limit} requests are at work already")
        self.inflight += 1

    def __exit__(self, *_: object) -> None:
        self.inflight -= 1
