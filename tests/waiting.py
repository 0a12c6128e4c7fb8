"""Waiting for what tells nobody that it came: asked again and again, for no longer than the given seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0


def until(holds: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """Wait until something is true, and return it."""
    due = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < due, "it never came"
        time.sleep(0.01)
    return value


async def async_until(holds: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait until something is true while the event loop runs on."""
    due = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < due, "it never came"
        await asyncio.sleep(0.01)
