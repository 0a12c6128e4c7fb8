"""A load generator for POST /rank: closed loop (always N requests at work) or open loop (arrivals at a fixed rate).

In the open loop a latency counts from when the request was due, not from when a connection was free to send it, so a
service that falls behind cannot hide it.

The generator shares a machine with what it measures, so it works in callbacks: an answer is counted and the next
request written in one step, without a task or a future each. Event loops count milliseconds (uvloop's clock knows no
less); latencies are taken with `time.perf_counter`, and a thread keeps the open loop's beat.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools
import msgspec
import numpy as np

from app.errors import ConfigError

READ_TIMEOUT_S = 30.0
LOOK_EVERY_S = 1.0
RECONNECT_S = 0.05
CONNECT_S = 1.0
"""Waited at most for the connections of an open loop; those that are lacking then are tried on."""
_version = re.compile(rb'"version":(\d+)')


@dataclass
class LoadResult:
    """What came back."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    """HTTP status to number; 0 is a request that got no whole answer."""
    versions: Counter[int] = field(default_factory=Counter)
    degraded: int = 0
    latencies_s: list[float] = field(default_factory=list)
    """Of the answers with status 200."""

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200)

    def summary(self) -> dict[str, Any]:
        """Requests a second and percentiles in milliseconds, ready for JSON."""
        taken = np.array(self.latencies_s or [float("nan")]) * 1000
        answered = self.statuses[200]
        return {
            "seconds": round(self.seconds, 3),
            "requests": sum(self.statuses.values()),
            "requests_per_second": round(answered / self.seconds, 1) if self.seconds else 0.0,
            "failed": self.failed,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "versions": {str(version): count for version, count in sorted(self.versions.items())},
            "degraded": self.degraded,
            "latency_ms": {
                name: round(float(np.percentile(taken, percent)), 3) if answered else None
                for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("p999", 99.9), ("max", 100))
            },
        }


def rank_bodies(
    user_ids: Sequence[str], item_ids: Sequence[str], candidates: int, count: int = 512, seed: int = 0
) -> list[bytes]:
    """Bodies with a user and distinct candidates drawn uniformly."""
    dice = random.Random(seed)
    return [
        msgspec.json.encode(
            {"user_id": dice.choice(user_ids), "item_ids": dice.sample(item_ids, min(candidates, len(item_ids)))}
        )
        for _ in range(count)
    ]


class _Client(asyncio.Protocol):
    """One keep-alive connection with one request at a time; tells its run of the answer, or of there being none."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._body: list[bytes] = []
        self.asked = False
        self.due = 0.0
        self.reconnect_s = RECONNECT_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._parser = httptools.HttpResponseParser(self)

    def ask(self, request: bytes, due: float) -> None:
        """The connection must be open and nothing asked on it."""
        assert self._transport is not None
        self.asked, self.due = True, due
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self.asked = False
        if self._parser.should_keep_alive():
            self._run.answered(self, self._parser.get_status_code(), body)
        else:
            self._run.count(self.due, self._parser.get_status_code(), body)
            self.reconnect_s = 0.0  # the server closes after each answer; it has not refused
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._run.lost(self)


class LoadGenerator:
    def __init__(self, url: str, bodies: Sequence[bytes], *, headers: dict[str, str] | None = None) -> None:
        """Raises ConfigError for a URL that is not http://host[:port]."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"{url}: expected http://host:port")
        self.address = parts.hostname, parts.port or 80
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._requests = [
            (
                f"POST {parts.path.rstrip('/')}/rank HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                f"Content-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
            ).encode()
            + body
            for body in bodies
        ]
        self._next = 0
        self.stopped = False
        self.result = LoadResult()
        """Grows while a run is under way."""

    def stop(self) -> None:
        """Let a closed loop end early; requests at work are waited for. May be called from another thread."""
        self.stopped = True

    def next_request(self) -> bytes:
        self._next += 1
        return self._requests[self._next % len(self._requests)]

    async def closed(self, concurrency: int, seconds: float) -> LoadResult:
        """Keep `concurrency` requests at work for a time."""
        self.result = LoadResult()
        with _old_objects_left_alone():
            return await _Closed(self, concurrency, seconds).run()

    async def open(self, rate: float, seconds: float, *, connections: int = 64) -> LoadResult:
        """Send `rate` requests a second, evenly spaced, whatever the service does."""
        self.result = LoadResult()
        with _old_objects_left_alone():
            return await _Open(self, connections, rate, seconds).run()


@contextlib.contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Collections of a caller's large heap took 50 to 80 ms, which the open loop put down to the service."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Run:
    """Connections at work until there is nothing left to ask."""

    def __init__(self, generator: LoadGenerator, connections: int) -> None:
        self._generator = generator
        self._result = generator.result
        self._connections = connections
        self._clients: set[_Client] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()

    def free(self, client: _Client) -> None:
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

    def answered(self, client: _Client, status: int, body: bytes) -> None:
        self.count(client.due, status, body)
        self.free(client)

    def count(self, due: float, status: int, body: bytes) -> None:
        result = self._result
        result.statuses[status] += 1
        if status == 200:
            result.latencies_s.append(time.perf_counter() - due)
            found = _version.search(body, 0, 300)
            result.versions[int(found[1]) if found else 0] += 1
            result.degraded += b'"degraded":[]' not in body

    def lost(self, client: _Client) -> None:
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
                _, client = await self._loop.create_connection(lambda: _Client(self), *self._generator.address)
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


class _Closed(_Run):
    def __init__(self, generator: LoadGenerator, connections: int, seconds: float) -> None:
        super().__init__(generator, connections)
        self._until = time.perf_counter() + seconds

    async def begin(self) -> None:
        self._loop.call_later(self._until - time.perf_counter(), self._end_if_idle)

    def free(self, client: _Client) -> None:
        now = time.perf_counter()
        if now < self._until and not self._generator.stopped:
            client.ask(self._generator.next_request(), now)
        else:
            self._end_if_idle()

    def lost(self, client: _Client) -> None:
        super().lost(client)
        self._end_if_idle()

    def refused(self) -> None:
        self._result.statuses[0] += 1
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        over = self._generator.stopped or time.perf_counter() >= self._until
        if over and not any(client.asked for client in self._clients):
            self._finished.set()


class _Open(_Run):
    def __init__(self, generator: LoadGenerator, connections: int, rate: float, seconds: float) -> None:
        super().__init__(generator, connections)
        self._rate = rate
        self._left = max(1, int(rate * seconds))
        self._free: deque[_Client] = deque()
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
            self._free.popleft().ask(self._generator.next_request(), due)
        else:
            self._waiting.append(due)

    def free(self, client: _Client) -> None:
        if self._waiting:
            client.ask(self._generator.next_request(), self._waiting.popleft())
        else:
            self._free.append(client)

    def count(self, due: float, status: int, body: bytes) -> None:
        super().count(due, status, body)
        self._one_less()

    def lost(self, client: _Client) -> None:
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
