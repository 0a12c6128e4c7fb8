"""Closed loop (always N requests at work) and open loop (arrivals at a fixed rate) over keep-alive connections."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable

from app.loadgen.client import RECONNECT_S, Client
from app.loadgen.requests import Requests
from app.loadgen.result import LoadResult

READ_TIMEOUT_S = 30.0
LOOK_EVERY_S = 1.0
CONNECT_S = 1.0
"""Waited at most for the connections of an open loop; those that are lacking then are tried on."""


class Run:
    """Connections at work until there is nothing left to ask."""

    def __init__(self, requests: Requests, result: LoadResult, connections: int) -> None:
        self._requests = requests
        self._result = result
        self._connections = connections
        self._clients: set[Client] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()

    def free(self, client: Client) -> None:
        """This connection can be asked something."""
        raise NotImplementedError

    async def begin(self) -> None:
        """The first connections are being made."""

    async def run(self) -> LoadResult:
        began = time.perf_counter()
        try:
            for _ in range(self._connections):
                self._connect()
            await self.begin()
            while not self._finished.is_set():
                try:
                    await asyncio.wait_for(self._finished.wait(), LOOK_EVERY_S)
                except TimeoutError:
                    self._end_overdue()
        finally:
            self._finished.set()
            self._result.seconds = time.perf_counter() - began
            for task in self._connecting:
                task.cancel()
            for client in list(self._clients):
                client.close()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        return self._result

    def answered(self, client: Client, status: int, body: bytes) -> None:
        self.count(client.due, status, body)
        self.free(client)

    def count(self, due: float, status: int, body: bytes) -> None:
        self._result.add(due, status, body)

    def lost(self, client: Client) -> None:
        self._clients.discard(client)
        if client.asked:
            self._result.statuses[0] += 1
        if not self._finished.is_set():
            self._connect(client.reconnect_s)

    def _connect(self, after_s: float = 0.0) -> None:
        task = self._loop.create_task(self._connected(after_s))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connected(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        while not self._finished.is_set():
            try:
                _, client = await self._loop.create_connection(lambda: Client(self), *self._requests.address)
            except OSError:
                self.refused()
                await asyncio.sleep(RECONNECT_S)
                continue
            self._clients.add(client)
            self.free(client)
            return

    def refused(self) -> None:
        """A connection could not be had."""

    def _end_overdue(self) -> None:
        limit = time.perf_counter() - READ_TIMEOUT_S
        for client in list(self._clients):
            if client.asked and client.due < limit:
                client.close()


class Closed(Run):
    """Always as many requests at work as there are connections, for a time or until `stopped`."""

    def __init__(
        self, requests: Requests, result: LoadResult, connections: int, seconds: float, stopped: Callable[[], bool]
    ) -> None:
        super().__init__(requests, result, connections)
        self._stopped = stopped
        self._until = time.perf_counter() + seconds

    async def begin(self) -> None:
        self._loop.call_later(self._until - time.perf_counter(), self._end_if_idle)

    def free(self, client: Client) -> None:
        now = time.perf_counter()
        if now < self._until and not self._stopped():
            client.ask(self._requests.next(), now)
        else:
            self._end_if_idle()

    def lost(self, client: Client) -> None:
        super().lost(client)
        self._end_if_idle()

    def refused(self) -> None:
        self._result.statuses[0] += 1
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        over = self._stopped() or time.perf_counter() >= self._until
        if over and not any(client.asked for client in self._clients):
            self._finished.set()


class Open(Run):
    """Arrivals at a fixed rate, evenly spaced."""

    def __init__(self, requests: Requests, result: LoadResult, connections: int, rate: float, seconds: float) -> None:
        super().__init__(requests, result, connections)
        self._rate = rate
        self._left = max(1, int(rate * seconds))
        self._free: deque[Client] = deque()
        self._waiting: deque[float] = deque()

    async def begin(self) -> None:
        # Connections are kept, so what a service needs to accept dozens at once is none of its requests' latency.
        await asyncio.wait(self._connecting, timeout=CONNECT_S)
        threading.Thread(target=self._beat, args=(self._left,), daemon=True, name="load-beat").start()

    def _beat(self, arrivals: int) -> None:
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
            self._free.popleft().ask(self._requests.next(), due)
        else:
            self._waiting.append(due)

    def free(self, client: Client) -> None:
        if self._waiting:
            client.ask(self._requests.next(), self._waiting.popleft())
        else:
            self._free.append(client)

    def count(self, due: float, status: int, body: bytes) -> None:
        super().count(due, status, body)
        self._one_less()

    def lost(self, client: Client) -> None:
        if client in self._free:
            self._free.remove(client)
        if client.asked:
            self._one_less()
        super().lost(client)

    def _end_overdue(self) -> None:
        """Those that found no connection in time have failed too."""
        super()._end_overdue()
        limit = time.perf_counter() - READ_TIMEOUT_S
        while self._waiting and self._waiting[0] < limit:
            self._waiting.popleft()
            self._result.statuses[0] += 1
            self._one_less()

    def _one_less(self) -> None:
        self._left -= 1
        if not self._left:
            self._finished.set()
