"""The priority of a thread beside those that serve requests."""

from __future__ import annotations

import contextlib
import os
import threading

NICENESS = 10


def yield_to_requests() -> None:
    """Have the kernel prefer other threads to this one where both want the core; Linux has a niceness per thread."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
