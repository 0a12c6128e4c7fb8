"""Waiting for what tells nobody that it came: asked again and again, for no longer than the given seconds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0
HELD_S = 600.0
"""How long what a test holds up waits to be let go on: longer than the rest of the test takes on any machine."""


def until(holds: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """Wait until something is true, and return it."""
    due = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < due, "it never came"
        time.sleep(0.01)
    return value


def in_some_run(test: Callable[[], None], runs: int = 10) -> None:
    """Run a test of times again if it fails: another program takes the processor in some runs, but not in each."""
    for _ in range(runs - 1):
        with contextlib.suppress(AssertionError):
            return test()
    return test()


async def async_until(holds: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait until something is true while the event loop runs on."""
    due = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < due, "it never came"
        await asyncio.sleep(0.01)
