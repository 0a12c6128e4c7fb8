"""`RecordedLoad`: an open loop that records every answer: when it was due, when it came, its version and its body."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from app.loadgen.connection import LoadConnection
from app.loadgen.generator import LoadGenerator, gc_frozen
from app.loadgen.requests import RequestCycle
from app.loadgen.result import LoadResult, version_of
from app.loadgen.runs import READ_TIMEOUT_S, OpenLoop

Floats = npt.NDArray[np.float64]


@dataclass
class Recording:
    """Answers in the order in which they came. Times are `time.perf_counter()`, which all processes share."""

    due_s: list[float] = field(default_factory=list)
    done_s: list[float] = field(default_factory=list)
    version: list[int] = field(default_factory=list)
    """The version that answered; 0 for a request that failed."""
    status: list[int] = field(default_factory=list)
    """HTTP status; 0 for a request without a whole answer."""
    is_degraded: list[bool] = field(default_factory=list)
    failed: int = 0
    degraded: int = 0
    bodies: list[bytes] = field(default_factory=list)
    """The body of every `keep_each`-th answer."""
    keep_each: int = 0
    """0 keeps none."""
    seen: set[int] = field(default_factory=set)
    """Versions that have answered."""

    def add(self, due: float, status: int, body: bytes) -> None:
        """Record an answer that came now."""
        self.due_s.append(due)
        self.done_s.append(time.perf_counter())
        self.status.append(status)
        if status != 200:
            self.failed += 1
            self.version.append(0)
            self.is_degraded.append(False)
            return
        version = version_of(body)
        self.version.append(version)
        self.seen.add(version)
        self.is_degraded.append(b'"degraded":[]' not in body)
        self.degraded += self.is_degraded[-1]
        if self.keep_each and len(self.version) % self.keep_each == 0:
            self.bodies.append(body)

    def arrays(self) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        """Return when each request was due, its latency in ms and its version, without failed requests."""
        version = np.array(self.version, np.int64)
        due = np.array(self.due_s)
        latency_ms = 1000 * (np.array(self.done_s) - due)
        answered = version > 0
        return due[answered], latency_ms[answered], version[answered]

    def live_at(self) -> dict[int, float]:
        """Return version to the time of its first answer, in the order of those times."""
        first: dict[int, float] = {}
        for version, done in zip(self.version, self.done_s, strict=True):
            if version:
                first.setdefault(version, done)
        return first


class RecordedLoad(LoadGenerator):
    """A `LoadGenerator` whose open loop records every answer."""

    def __init__(self, url: str, bodies: Sequence[bytes], *, headers: dict[str, str] | None = None) -> None:
        super().__init__(url, bodies, headers=headers)
        self.recording = Recording()

    async def recorded(
        self,
        rate: float,
        until: Callable[[], bool],
        *,
        keep_each: int = 0,
        connections: int = 64,
        recording: Recording | None = None,
    ) -> Recording:
        """Send `rate` requests a second until `until` returns True, and wait for those at work then.

        Args:
            recording: where to record; a new one if it is left out.
        """
        recording = self.recording = recording or Recording(keep_each=keep_each)
        self.result = LoadResult()
        with gc_frozen():
            await _RecordedLoop(self._requests, self.result, connections, rate, until, recording).run()
        return recording


class _RecordedLoop(OpenLoop):
    """An open loop that ends when `until` returns True, or after LONGEST_S seconds."""

    LONGEST_S = 3600

    def __init__(
        self,
        requests: RequestCycle,
        result: LoadResult,
        connections: int,
        rate: float,
        until: Callable[[], bool],
        recording: Recording,
    ) -> None:
        super().__init__(requests, result, connections, rate, self.LONGEST_S)
        self._until = until
        self._recording = recording
        self._arrived = self._counted = 0
        self._over = False

    def _arrive(self, due: float) -> None:
        if not self._over and self._until():
            self._over = True
            self._end_if_idle()
        if not self._over:
            self._arrived += 1
            super()._arrive(due)

    def _count_down(self) -> None:
        self._counted += 1
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._over and self._counted >= self._arrived:
            self._finished.set()

    def count(self, due: float, status: int, body: bytes) -> None:
        self._recording.add(due, status, body)
        super().count(due, status, body)

    def _end_overdue(self) -> None:
        limit = time.perf_counter() - READ_TIMEOUT_S
        for due in self._waiting:
            if due < limit:  # it found no free connection in time
                self._recording.add(due, 0, b"")
        super()._end_overdue()

    def on_lost(self, connection: LoadConnection) -> None:
        if connection.waiting:
            self._recording.add(connection.due, 0, b"")
        super().on_lost(connection)
