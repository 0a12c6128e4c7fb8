"""Work for tests of what shares a thread's time out."""

from __future__ import annotations

import time


def spin(seconds: float) -> None:
    """Work by processor time, so that a busy machine does not shorten it."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
