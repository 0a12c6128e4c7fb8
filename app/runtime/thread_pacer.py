"""Work on a large version beside requests: in small pieces, with rests as long as the requests need.

The loader's thread and the event loop's may have one core between them, and the kernel would give each its half.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from app.runtime.loop_pacer import LEAST_SHARE, SLEEP_S

SHARE_OF_IDLE = 0.5
"""Less than the event loop's own slices take, which begin when no request can go on: this thread cannot tell."""
SERVING = 0.05
"""A process whose other threads take less of the time than this has nobody to spare."""
SLICE_BYTES = 1 << 20
"""Hashed or looked at between two rests: less than a millisecond."""

_thread = threading.local()


class _Rests:
    def __init__(self) -> None:
        self._own = self._all = 0.0
        self._wall = time.perf_counter()
        self._own_began, self._all_began = time.thread_time(), time.process_time()
        self._rested_s = 0.0

    def rest(self) -> None:
        own = time.thread_time() - self._own_began
        wall = time.perf_counter() - self._wall
        others = (time.process_time() - self._all_began - own) / wall if wall > 0 else 0.0
        if others < SERVING:
            return
        share = max(LEAST_SHARE, SHARE_OF_IDLE * (1 - others))
        due = own * (1 / share - 1) - self._rested_s
        if due >= SLEEP_S:
            before = time.perf_counter()
            time.sleep(due)
            self._rested_s += time.perf_counter() - before


@contextlib.contextmanager
def in_background() -> Iterator[None]:
    """What this thread does within the block rests where it calls `throttle()`."""
    _thread.rests = _Rests()
    try:
        yield
    finally:
        _thread.rests = None


def throttle() -> None:
    """Leave the processor to requests for a while, where they need it; nothing outside of `in_background`."""
    rests: _Rests | None = getattr(_thread, "rests", None)
    if rests is not None:
        rests.rest()
