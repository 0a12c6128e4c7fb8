"""Throttle a thread that works on a large version beside requests: small slices, pauses as long as requests need.

The loader's thread and the event loop's may have one core between them, and the kernel would give each its half.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from app.runtime.loop_pacer import LEAST_SHARE, SLEEP_S

SHARE_OF_IDLE = 0.5
"""Share of the idle time that the thread may take: less than slices on the event loop, since it cannot see requests."""
BUSY_SHARE = 0.05
"""Below this share of the time of the process's other threads nothing is served that would have to wait."""
SLICE_BYTES = 1 << 20
"""Bytes hashed or checked between two calls of `throttle`: less than a millisecond."""

_thread = threading.local()


class _ThreadPacer:
    """Processor time of one thread since it began, against that of the others in its process."""

    def __init__(self) -> None:
        self._wall_began = time.perf_counter()
        self._thread_began, self._process_began = time.thread_time(), time.process_time()
        self._slept_s = 0.0

    def throttle(self) -> None:
        thread_s = time.thread_time() - self._thread_began
        wall_s = time.perf_counter() - self._wall_began
        others = (time.process_time() - self._process_began - thread_s) / wall_s if wall_s > 0 else 0.0
        if others < BUSY_SHARE:
            return
        share = max(LEAST_SHARE, SHARE_OF_IDLE * (1 - others))
        due_s = thread_s * (1 / share - 1) - self._slept_s
        if due_s >= SLEEP_S:
            before = time.perf_counter()
            time.sleep(due_s)
            self._slept_s += time.perf_counter() - before


@contextlib.contextmanager
def in_background() -> Iterator[None]:
    """Let `throttle` pause this thread within the block."""
    _thread.pacer = _ThreadPacer()
    try:
        yield
    finally:
        _thread.pacer = None


def throttle() -> None:
    """Leave the processor to requests for a while, if they need it. Outside of `in_background` this does nothing."""
    pacer: _ThreadPacer | None = getattr(_thread, "pacer", None)
    if pacer is not None:
        pacer.throttle()
