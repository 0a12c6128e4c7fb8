"""The priority of threads beside the one that serves requests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

NICENESS = 10


def yield_to_requests() -> None:
    """Have the kernel prefer other threads to this one where both want the core; Linux has a niceness per thread."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


_pool = ThreadPoolExecutor(4, thread_name_prefix="background", initializer=yield_to_requests)


async def on_background_thread(function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Call a function on a thread that yields to requests: for answers that take long to make.

    What requests wait for, such as the look-up of a store's new master, is not for these threads but for
    `asyncio.to_thread`.
    """
    return await asyncio.get_running_loop().run_in_executor(_pool, function, *arguments)
