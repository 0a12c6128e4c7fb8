"""The priority of threads beside the one that serves requests."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

NICENESS = 10


def yield_to_requests() -> None:
    """Have the kernel prefer other threads to this one where both want the core; Linux has a niceness per thread."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def background_threads(most: int | None = None, name: str = "background") -> ThreadPoolExecutor:
    """Return a pool of threads that yield to requests.

    Args:
        most: threads at most; None leaves the number to `ThreadPoolExecutor`.
        name: begins the names of the threads.
    """
    return ThreadPoolExecutor(most, thread_name_prefix=name, initializer=yield_to_requests)
