"""A load generator for POST /rank: closed loop (always N requests at work) or open loop (arrivals at a fixed rate).

In the open loop a latency counts from when the request was due, not from when a connection was free to send it, so a
service that falls behind cannot hide it.

The generator shares a machine with what it measures, so it works in callbacks: an answer is counted and the next
request written in one step, without a task or a future each. Event loops count milliseconds (uvloop's clock knows no
less); latencies are taken with `time.perf_counter`, and a thread keeps the open loop's beat.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence

from app.loadgen.requests import Requests
from app.loadgen.result import LoadResult
from app.loadgen.runs import Closed, Open


class LoadGenerator:
    def __init__(self, url: str, bodies: Sequence[bytes], *, headers: dict[str, str] | None = None) -> None:
        """Raises ConfigError for a URL that is not http://host[:port]."""
        self._requests = Requests(url, bodies, headers or {})
        self._stopped = False
        self.result = LoadResult()
        """Grows while a run is under way."""

    def stop(self) -> None:
        """Let a closed loop end early; requests at work are waited for. May be called from another thread."""
        self._stopped = True

    async def closed(self, concurrency: int, seconds: float) -> LoadResult:
        """Keep `concurrency` requests at work for a time."""
        self.result = LoadResult()
        with old_objects_left_alone():
            return await Closed(self._requests, self.result, concurrency, seconds, lambda: self._stopped).run()

    async def open(self, rate: float, seconds: float, *, connections: int = 64) -> LoadResult:
        """Send `rate` requests a second, evenly spaced, whatever the service does."""
        self.result = LoadResult()
        with old_objects_left_alone():
            return await Open(self._requests, self.result, connections, rate, seconds).run()


@contextlib.contextmanager
def old_objects_left_alone() -> Iterator[None]:
    """Collections of a caller's large heap took 50 to 80 ms, which the open loop put down to the service."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
