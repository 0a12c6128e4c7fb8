"""`Admission` bounds how many requests are at work at once; it refuses more at once instead of letting them wait."""

from __future__ import annotations

from app.errors import Overloaded


class Admission:
    """Counts the requests at work. There is no queue: on one event loop a request that waits delays those behind it.

    It is a context manager around the work of one request.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inflight = 0

    def __enter__(self) -> None:
        """Admit one request, or raise Overloaded."""
        if self.inflight >= self.limit:
            raise Overloaded(f"{self.limit} requests are at work already")
        self.inflight += 1

    def __exit__(self, *_: object) -> None:
        self.inflight -= 1
