"""A load generator for POST /rank: closed loop (always N requests at work) or open loop (arrivals at a fixed rate).

In the open loop a latency counts from when the request was due, not from when a connection was free to send it, so a
service that falls behind cannot hide it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools
import msgspec
import numpy as np

from app.errors import ConfigError

READ_TIMEOUT_S = 30.0
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
    """One keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        if self.transport is None or self.transport.is_closing():
            raise ConnectionError("closed")
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._answer = self._loop.create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.connection_lost(error)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._body)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed"))


class LoadGenerator:
    def __init__(self, url: str, bodies: Sequence[bytes], *, headers: dict[str, str] | None = None) -> None:
        """Raises ConfigError for a URL that is not http://host[:port]."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"{url}: expected http://host:port")
        self._host, self._port = parts.hostname, parts.port or 80
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
        self._stopped = False
        self.result = LoadResult()
        """Grows while a run is under way."""

    def stop(self) -> None:
        """Let a closed loop end early; requests at work are waited for."""
        self._stopped = True

    async def closed(self, concurrency: int, seconds: float) -> LoadResult:
        """Keep `concurrency` requests at work for a time."""
        self.result = result = LoadResult()
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def worker() -> None:
            client: _Client | None = None
            while loop.time() - began < seconds and not self._stopped:
                client = await self._one(client, loop.time(), result)
            if client is not None and client.transport is not None:
                client.transport.close()

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        result.seconds = loop.time() - began
        return result

    async def open(self, rate: float, seconds: float, *, connections: int = 64) -> LoadResult:
        """Send `rate` requests a second, evenly spaced, whatever the service does."""
        self.result = result = LoadResult()
        loop = asyncio.get_running_loop()
        free: deque[_Client | None] = deque([None] * connections)
        waiting: deque[float] = deque()
        tasks: set[asyncio.Task[None]] = set()
        began = loop.time()

        async def send(due: float) -> None:
            client = free.popleft()
            while True:
                client = await self._one(client, due, result)
                if not waiting:
                    break
                due = waiting.popleft()
            free.append(client)

        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (pause := due - loop.time()) > 0:
                await asyncio.sleep(pause)
            if free:
                task = asyncio.create_task(send(due))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                waiting.append(due)
        while tasks:
            await asyncio.gather(*tasks)
        result.seconds = loop.time() - began
        for client in free:
            if client is not None and client.transport is not None:
                client.transport.close()
        return result

    async def _one(self, client: _Client | None, due: float, result: LoadResult) -> _Client | None:
        """One request; the connection to use next, or None after a failure."""
        loop = asyncio.get_running_loop()
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        try:
            if client is None or client.transport is None:
                _, client = await loop.create_connection(_Client, self._host, self._port)
            answer = client.ask(request)
            timer = loop.call_later(READ_TIMEOUT_S, answer.cancel)
            try:
                status, body = await answer
            finally:
                timer.cancel()
        except (OSError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not answer.cancelled():
                raise
            result.statuses[0] += 1
            if client is not None and client.transport is not None:
                client.transport.abort()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)
            return None
        result.statuses[status] += 1
        if status == 200:
            result.latencies_s.append(loop.time() - due)
            found = _version.search(body, 0, 300)
            result.versions[int(found[1]) if found else 0] += 1
            result.degraded += b'"degraded":[]' not in body
        return client
