"""`LoadGenerator` for POST /rank: a closed loop (always N requests at work) or an open one (arrivals at a fixed rate).

In the open loop a latency counts from when the request was due, not from when a connection was free to send it, so a
service that falls behind cannot hide it.

The generator shares a machine with what it measures, so it works in callbacks: an answer is counted and the next
request written in one step, without a task or a future for each. Event loops count milliseconds (uvloop's clock has
no finer ones), so latencies are taken with `time.perf_counter`, and a thread times the open loop's arrivals.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence

from app.loadgen.requests import RequestCycle
from app.loadgen.result import LoadResult
from app.loadgen.runs import ClosedLoop, OpenLoop


class LoadGenerator:
    """Sends the same requests over and over to one service."""

    def __init__(self, url: str, bodies: Sequence[bytes], *, headers: dict[str, str] | None = None) -> None:
        """Prepare the requests. Raises ConfigError for a URL that is not http://host[:port]."""
        self._requests = RequestCycle(url, bodies, headers or {})
        self._stopped = False
        self.result = LoadResult()
        """What came back of the current or the last run; it grows while one is under way."""

    def stop(self) -> None:
        """Let a closed loop end early, after the requests at work; callable from another thread."""
        self._stopped = True

    async def closed(self, concurrency: int, seconds: float) -> LoadResult:
        """Keep `concurrency` requests at work for this many seconds."""
        self.result = LoadResult()
        with gc_frozen():
            return await ClosedLoop(self._requests, self.result, concurrency, seconds, lambda: self._stopped).run()

    async def open(self, rate: float, seconds: float, *, connections: int = 64) -> LoadResult:
        """Send `rate` requests a second, evenly spaced, whatever the service does."""
        self.result = LoadResult()
        with gc_frozen():
            return await OpenLoop(self._requests, self.result, connections, rate, seconds).run()


@contextlib.contextmanager
def gc_frozen() -> Iterator[None]:
    """Keep the garbage collector from walking the objects that are there already.

    Collections of a caller's large heap took 50 to 80 ms, which the open loop put down to the service.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
