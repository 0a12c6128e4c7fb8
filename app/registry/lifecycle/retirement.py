"""Retire versions that no label points at any more, once the requests that began with them are done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import SwapEvent
from app.registry.lifecycle.swap_log import SwapLog

log = structlog.get_logger(__name__)


class Retirement:
    """Retires the versions of one process once they have drained. All methods belong to one event loop."""

    def __init__(self, retire: Callable[[Artifact], None], events: SwapLog, grace_s: float) -> None:
        """
        Args:
            retire: called for a version `grace_s` seconds after it was scheduled.
            events: logs each retirement.
        """
        self._retire, self._events, self._grace_s = retire, events, grace_s
        self._tasks: set[asyncio.Task[None]] = set()

    def schedule(self, before: Iterable[Artifact], after: Iterable[Artifact], label: str) -> None:
        """Retire the versions that were in service before a change of `label` and are not after it."""
        in_service = {id(artifact) for artifact in after}
        for artifact in {id(artifact): artifact for artifact in before}.values():
            if id(artifact) not in in_service:
                task = asyncio.create_task(self._retire_later(artifact, label))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def wait(self) -> None:
        """Wait until what was scheduled so far is retired."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Cancel what has not been retired yet."""
        for task in self._tasks:
            task.cancel()
        await self.wait()

    async def _retire_later(self, artifact: Artifact, label: str) -> None:
        await asyncio.sleep(self._grace_s)
        try:
            self._retire(artifact)
        except Exception:
            log.exception("model_not_retired", version=artifact.version)
        self._events.emit(SwapEvent("retired", label, artifact.version))
