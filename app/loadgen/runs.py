"""Closed loop (always N requests at work) and open loop (arrivals at a fixed rate) over keep-alive connections."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable

from app.loadgen.connection import RECONNECT_S, LoadConnection
from app.loadgen.requests import RequestCycle
from app.loadgen.result import LoadResult

READ_TIMEOUT_S = 30.0
CHECK_EVERY_S = 1.0
CONNECT_S = 1.0
"""How long an open loop waits for its connections before it begins; it keeps trying those that failed."""


class LoadRun:
    """Opens connections, replaces lost ones, and counts answers until a subclass ends the run; a ConnectionListener."""

    def __init__(self, requests: RequestCycle, result: LoadResult, connections: int) -> None:
        self._requests = requests
        self._result = result
        self._connections = connections
        self._open: set[LoadConnection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()

    def on_free(self, connection: LoadConnection) -> None:
        """Use a connection that can send a request."""
        raise NotImplementedError

    async def begin(self) -> None:
        """Start the run, while the first connections are being made."""

    async def run(self) -> LoadResult:
        """Run to the end and return the result."""
        began = time.perf_counter()
        try:
            for _ in range(self._connections):
                self._connect()
            await self.begin()
            while not self._finished.is_set():
                try:
                    await asyncio.wait_for(self._finished.wait(), CHECK_EVERY_S)
                except TimeoutError:
                    self._end_overdue()
        finally:
            self._finished.set()
            self._result.seconds = time.perf_counter() - began
            for task in self._connecting:
                task.cancel()
            for connection in list(self._open):
                connection.close()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        return self._result

    def on_answer(self, connection: LoadConnection, status: int, body: bytes, *, reusable: bool) -> None:
        self.count(connection.due, status, body)
        if reusable:
            self.on_free(connection)

    def count(self, due: float, status: int, body: bytes) -> None:
        """Count an answer to a request that was due at this `time.perf_counter()`."""
        self._result.add(due, status, body)

    def on_lost(self, connection: LoadConnection) -> None:
        self._open.discard(connection)
        if connection.waiting:
            self._result.statuses[0] += 1
        if not self._finished.is_set():
            self._connect(connection.reconnect_s)

    def _connect(self, after_s: float = 0.0) -> None:
        task = self._loop.create_task(self._open_connection(after_s))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _open_connection(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        while not self._finished.is_set():
            try:
                _, connection = await self._loop.create_connection(
                    lambda: LoadConnection(self), *self._requests.address
                )
            except OSError:
                self.on_refused()
                await asyncio.sleep(RECONNECT_S)
                continue
            self._open.add(connection)
            self.on_free(connection)
            return

    def on_refused(self) -> None:
        """Take note that the server refused a connection."""

    def _end_overdue(self) -> None:
        """Close connections whose request is not answered in time; it then counts as failed."""
        limit = time.perf_counter() - READ_TIMEOUT_S
        for connection in list(self._open):
            if connection.waiting and connection.due < limit:
                connection.close()


class ClosedLoop(LoadRun):
    """Keeps as many requests at work as there are connections, for a time or until `stopped`."""

    def __init__(
        self, requests: RequestCycle, result: LoadResult, connections: int, seconds: float, stopped: Callable[[], bool]
    ) -> None:
        super().__init__(requests, result, connections)
        self._stopped = stopped
        self._until = time.perf_counter() + seconds

    async def begin(self) -> None:
        self._loop.call_later(self._until - time.perf_counter(), self._end_if_idle)

    def on_free(self, connection: LoadConnection) -> None:
        now = time.perf_counter()
        if now < self._until and not self._stopped():
            connection.send(self._requests.next(), now)
        else:
            self._end_if_idle()

    def on_lost(self, connection: LoadConnection) -> None:
        super().on_lost(connection)
        self._end_if_idle()

    def on_refused(self) -> None:
        self._result.statuses[0] += 1
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        over = self._stopped() or time.perf_counter() >= self._until
        if over and not any(connection.waiting for connection in self._open):
            self._finished.set()


class OpenLoop(LoadRun):
    """Sends requests at a fixed rate, evenly spaced, whatever the service does."""

    def __init__(
        self, requests: RequestCycle, result: LoadResult, connections: int, rate: float, seconds: float
    ) -> None:
        super().__init__(requests, result, connections)
        self._rate = rate
        self._left = max(1, int(rate * seconds))
        self._free: deque[LoadConnection] = deque()
        self._waiting: deque[float] = deque()

    async def begin(self) -> None:
        # What a service needs to accept dozens of connections at once is no part of its requests' latency.
        await asyncio.wait(self._connecting, timeout=CONNECT_S)
        threading.Thread(target=self._keep_time, args=(self._left,), daemon=True, name="load-arrivals").start()

    def _keep_time(self, arrivals: int) -> None:
        began = time.perf_counter()
        for number in range(arrivals):
            due = began + number / self._rate
            if (pause := due - time.perf_counter()) > 0:
                time.sleep(pause)
            try:
                self._loop.call_soon_threadsafe(self._arrive, due)
            except RuntimeError:  # the run was cancelled and its loop is closed
                return
            if self._finished.is_set():
                return

    def _arrive(self, due: float) -> None:
        if self._finished.is_set():
            return
        if self._free:
            self._free.popleft().send(self._requests.next(), due)
        else:
            self._waiting.append(due)

    def on_free(self, connection: LoadConnection) -> None:
        if self._waiting:
            connection.send(self._requests.next(), self._waiting.popleft())
        else:
            self._free.append(connection)

    def count(self, due: float, status: int, body: bytes) -> None:
        super().count(due, status, body)
        self._count_down()

    def on_lost(self, connection: LoadConnection) -> None:
        if connection in self._free:
            self._free.remove(connection)
        if connection.waiting:
            self._count_down()
        super().on_lost(connection)

    def _end_overdue(self) -> None:
        """Count requests as failed, too, that found no free connection in time."""
        super()._end_overdue()
        limit = time.perf_counter() - READ_TIMEOUT_S
        while self._waiting and self._waiting[0] < limit:
            self._waiting.popleft()
            self._result.statuses[0] += 1
            self._count_down()

    def _count_down(self) -> None:
        self._left -= 1
        if not self._left:
            self._finished.set()
