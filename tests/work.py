"""Work for tests of code that shares out a thread's time."""

from __future__ import annotations

import time


def spin(seconds: float) -> None:
    """Work for so much processor time, so that a busy machine does not shorten it."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
