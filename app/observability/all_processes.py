"""The metrics of all processes of a service, which share them through files (PROMETHEUS_MULTIPROC_DIR)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

READ_ATTEMPTS = 3


def render_all_processes(read: Callable[[], bytes] | None = None) -> bytes:
    """Return the Prometheus text of all processes.

    Args:
        read: reads the files once; by default as prometheus_client does.
    """
    read = read or _read
    # A process that starts creates its files empty and fills them later; a read in between fails.
    for _ in range(READ_ATTEMPTS - 1):
        try:
            return read()
        except (struct.error, RuntimeError):
            continue
    return read()


def _read() -> bytes:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def drop_worker(pid: int) -> None:
    """Remove the gauges of a process that ended; what it counted stays counted."""
    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
