"""The clients that `Attack` runs, each with as many connections as it is told."""

from __future__ import annotations

import asyncio
import base64
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

PIECE = b"x-filler: " + b"a" * 8000 + b"\r\n"
URL_PIECE = b"a" * 8000
RST_ON_CLOSE = struct.pack("ii", 1, 0)
LONGEST_HEAD = 100 << 20
MOST_REQUESTS = 10_000_000


class Attacker:
    """Runs one loop for each connection until it is cancelled."""

    def __init__(self, url: str, connections: int = 1, headers: dict[str, str] | None = None, **options: Any) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.connections = connections
        self.head = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items()).encode()
        self.options = options
        self.seen: Counter[str] = Counter()

    async def run(self) -> None:
        """Run until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.connections):
                group.create_task(self._keep_on(number))

    async def _keep_on(self, number: int) -> None:
        while True:
            try:
                await self.one(number)
            except OSError:
                self.seen["reset"] += 1
                await asyncio.sleep(0.05)
            except asyncio.IncompleteReadError:
                self.seen["closed"] += 1

    async def one(self, number: int) -> None:
        """Do it once; it is called again and again."""
        raise NotImplementedError

    async def connect(self, address: str | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, from another loopback address if one is given."""
        local = (address, 0) if address else None
        return await asyncio.open_connection(self.host, self.port, local_addr=local)


class EndlessHead(Attacker):
    """Sends a head that does not end, as a header line after the other or as one URL, and begins again."""

    async def one(self, number: int) -> None:
        _, writer = await self.connect()
        try:
            url = self.options.get("what") == "url"
            writer.write(b"GET /" if url else b"GET /health HTTP/1.1\r\nHost: a\r\n")
            for _ in range(LONGEST_HEAD // len(PIECE)):
                writer.write(URL_PIECE if url else PIECE)
                self.seen["bytes"] += len(PIECE)
                await writer.drain()
        finally:
            writer.transport.abort()
            self.seen["heads"] += 1
        await asyncio.sleep(0.05)

    async def _keep_on(self, number: int) -> None:
        while True:
            try:
                await self.one(number)
            except OSError:
                await asyncio.sleep(0.05)


class Hold(Attacker):
    """Opens connections that never send a whole head, and notes how long the service keeps each of them."""

    async def run(self) -> None:
        kinds = self.options["kinds"]  # name to number
        self.opened_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            count = 0
            for kind, number in kinds.items():
                for _ in range(number):
                    count += 1
                    group.create_task(self._hold(kind, f"127.0.0.{2 + count % 7}"))
                    if count % 20 == 0:
                        await asyncio.sleep(0.01)

    async def _hold(self, kind: str, address: str) -> None:
        try:
            reader, writer = await self.connect(address)
        except OSError:
            self.seen[f"{kind} refused"] += 1
            return
        self.seen[f"{kind} opened"] += 1
        began = time.monotonic()
        sending = asyncio.create_task(self._send(kind, writer))
        try:
            while await reader.read(65536):
                pass
        except OSError:
            pass
        else:
            self.seen[f"{kind} closed in order"] += 1
        finally:
            sending.cancel()
            writer.transport.abort()
        self.seen[f"{kind} closed"] += 1
        self.seen[f"{kind} slowest"] = max(self.seen[f"{kind} slowest"], time.monotonic() - began)  # type: ignore[assignment]

    async def _send(self, kind: str, writer: asyncio.StreamWriter) -> None:
        if kind == "idle":
            return
        writer.write(b"POST /rank HTTP/1.1\r\nHost: a\r\n")
        while kind == "slow":
            await asyncio.sleep(0.5)
            writer.write(b"x-slow: 1\r\n")


class Requests(Attacker):
    """Sends whole requests in a closed loop, and counts the answers by status; `times` bounds how many."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.requests = [self._request(*request) for request in self.options["requests"]]
        self._open: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    def _request(self, method: str, path: str, body: str = "") -> bytes:
        content = base64.b64decode(body)
        line = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}\r\n".encode()
        return line + self.head + b"\r\n" + content

    async def run(self) -> None:
        self.left = int(self.options.get("times", MOST_REQUESTS))
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.connections):
                    group.create_task(self._until_none_left(number))
        finally:
            for _, writer in self._open.values():
                writer.transport.abort()
            self._open.clear()

    async def _until_none_left(self, number: int) -> None:
        while self.left > 0:
            self.left -= 1
            try:
                await self.one(number)
            except (OSError, asyncio.IncompleteReadError):
                self.seen["lost"] += 1
                await asyncio.sleep(0.01)

    async def one(self, number: int) -> None:
        if number not in self._open:
            self._open[number] = await self.connect()
        reader, writer = self._open[number]
        try:
            writer.write(random.choice(self.requests))
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            await reader.readexactly(int(lower.split(b"content-length:")[1].split()[0]))
        except (OSError, asyncio.IncompleteReadError):
            self._open.pop(number)[1].transport.abort()
            raise
        self.seen[head.split()[1].decode()] += 1
        if b"connection: close" in lower:
            self._open.pop(number)[1].transport.abort()
        if pause := self.options.get("pause_s"):
            await asyncio.sleep(pause)


class Leave(Requests):
    """Sends a whole request, or part of one, and leaves before it is answered."""

    async def one(self, number: int) -> None:
        _, writer = await self.connect()
        try:
            request = random.choice(self.requests)
            writer.write(request[: random.choice([len(request), len(request), random.randrange(1, len(request))])])
            if random.random() < 0.5:
                await asyncio.sleep(random.random() * 0.01)
            if random.random() < 0.5:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        finally:
            self.seen["left"] += 1
            writer.transport.abort() if random.random() < 0.5 else writer.close()


class Newcomers(Attacker):
    """Opens a new connection every 50 ms, asks once, and notes failures and the slowest answer: an honest client."""

    async def one(self, number: int) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(5):
                reader, writer = await self.connect()
                writer.write(b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
            self.seen["answered" if answer.startswith(b"HTTP/1.1 200") else "failed"] += 1
        except (OSError, TimeoutError):
            self.seen["failed"] += 1
        slowest_ms = 1000 * (time.monotonic() - began)
        self.seen["slowest ms"] = max(self.seen["slowest ms"], slowest_ms)  # type: ignore[assignment]
        await asyncio.sleep(0.05)


class Updates(Attacker):
    """Writes fields of items to the store at a fixed rate."""

    async def run(self) -> None:
        rate, items, fields = (int(self.options[name]) for name in ("rate", "items", "fields"))
        store = urlsplit(self.options["redis_url"])
        reader, writer = await asyncio.open_connection(store.hostname, store.port)
        try:
            await self._command(reader, writer, "AUTH", store.password or "")
            began, count = time.monotonic(), 0
            while True:
                while count < (time.monotonic() - began) * rate:
                    field, value = f"item_f{random.randrange(fields)}", str(random.randrange(1000))
                    await self._command(reader, writer, "HSET", f"ctr:v1:item:{random.randrange(items)}", field, value)
                    count += 1
                    self.seen["written"] += 1
                await asyncio.sleep(1 / rate)
        finally:
            writer.transport.abort()

    async def _command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *words: str) -> None:
        bulk = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        writer.write(f"*{len(words)}\r\n{bulk}".encode())
        if (await reader.readline()).startswith(b"-"):
            raise ConnectionError(f"{words[0]} was refused")


ATTACKERS: dict[str, Callable[..., Attacker]] = {
    "endless_head": EndlessHead,
    "hold": Hold,
    "requests": Requests,
    "leave": Leave,
    "newcomers": Newcomers,
    "updates": Updates,
}
