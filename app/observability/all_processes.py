"""The metrics of all processes of a service, which share them through files (PROMETHEUS_MULTIPROC_DIR)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from prometheus_client import CollectorRegistry, generate_latest, multiprocess, values

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


def share_metrics_as(number: int) -> None:
    """Have this process count under its worker's number, before it makes any metric.

    By default files are named after process ids, and each worker that was replaced would leave some for ever. The next
    worker with the number goes on counting where this one ends.
    """
    if values.ValueClass is not values.MutexValue:
        values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


def drop_worker(number: int) -> None:
    """Remove the gauges of a worker that ended; what it counted stays counted."""
    multiprocess.mark_process_dead(number)  # type: ignore[no-untyped-call]
