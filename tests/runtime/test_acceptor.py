"""Tests of new connections over real sockets: those that fit, those that do not, and an accept() that fails."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app.runtime.acceptor import Acceptor
from app.runtime.connections import ConnectionLimits, Connections
from app.runtime.http_protocol import HttpProtocol
from app.runtime.processes.server import server_config
from app.settings import Settings
from tests.runtime.served import App
from tests.waiting import async_until

pytestmark = pytest.mark.anyio

REQUEST = b"GET / HTTP/1.1\r\n\r\n"


class FailingListener(socket.socket):
    """A listening socket of a process that has no descriptors left for a while."""

    failures = 0
    calls = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


class HeldApp(App):
    """An application that answers when it is let go."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.go.wait()
        await super().__call__(scope, receive, send)


class Server:
    """A server on a port of its own, and its clients."""

    def __init__(self, limits: dict[str, Any]) -> None:
        settings = Settings(_env_file=None)
        self.app = HeldApp(settings)
        limits = {"total": 4, "per_address": 100, "header_timeout_s": 60, "keep_alive_s": 60, **limits}
        self.connections = self.app.connections = Connections(ConnectionLimits(**limits), self.app.refused.append)
        config = server_config(settings, self.app)
        config.load()
        self.listener = FailingListener(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.bind(("127.0.0.1", 0))
        self.ended_by_client = 0

        def create_protocol() -> HttpProtocol:
            protocol = HttpProtocol(config, ServerState(), {})
            received = protocol.eof_received

            def eof_received() -> bool:
                self.ended_by_client += 1
                return received()

            protocol.eof_received = eof_received  # type: ignore[method-assign]
            return protocol

        self.acceptor = Acceptor(self.listener, self.connections, create_protocol)
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.getsockname()[1])
        self._writers.append(writer)
        writer.write(sent)
        return reader, writer

    async def ask(self, request: bytes = REQUEST) -> bytes:
        """Send a request on a connection of its own, end one's side, and return all that is answered."""
        reader, writer = await self.connect(request)
        writer.write_eof()
        async with asyncio.timeout(60):
            return await reader.read()

    async def close(self) -> None:
        self.acceptor.close()
        await self.acceptor.wait_closed()
        self.listener.close()
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await async_until(lambda: not len(self.connections))


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Server]:
    """Serve for a while; nothing times out if `limits` do not say so."""
    server = Server(limits)
    try:
        yield server
    finally:
        await server.close()


async def test_a_client_that_ends_its_side_behind_its_request_is_answered() -> None:
    async with serving() as server:
        server.app.go.clear()
        asked = asyncio.create_task(server.ask(b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"))
        await async_until(lambda: server.ended_by_client)
        server.app.go.set()
        answer = await asked
    assert answer.endswith(b"connection: close\r\n\r\nPOST {}")


async def test_connections_that_wait_when_the_listener_is_closed_are_answered() -> None:
    async with serving(total=50) as server:
        address = server.listener.getsockname()
        waiting = [socket.create_connection(address, 60) for _ in range(40)]  # the event loop does not turn meanwhile
        server.acceptor.close()
        for client in waiting:
            client.sendall(REQUEST)
            client.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            answers = [await loop.sock_recv(client, 1024) for client in waiting]
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 60)
        for client in waiting:
            client.close()


async def test_silent_connections_make_room() -> None:
    async with serving() as server:
        silent = [await server.connect() for _ in range(4)]
        await async_until(lambda: len(server.connections.opening) == 4)
        kept, writer = await server.connect()
        for _ in range(3):
            writer.write(REQUEST)
            assert (await kept.readuntil(b"done")).startswith(b"HTTP/1.1 200 ")
            silent.append(await server.connect())
        async with asyncio.timeout(60):
            assert [await reader.read() for reader, _ in silent[:3]] == [b""] * 3, "the first that came"
        assert len(server.connections) <= 4


async def test_a_body_that_made_room_is_told_so() -> None:
    async with serving(total=1) as server:
        reader, _ = await server.connect(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        await async_until(lambda: server.connections.bodies)
        assert b"200 OK" in await server.ask()
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")


async def test_where_all_have_a_request_at_work_a_new_connection_is_refused_at_once() -> None:
    async with serving(total=2) as server:
        server.app.go.clear()
        busy = [asyncio.create_task(server.ask()) for _ in range(2)]
        await async_until(lambda: len(server.connections) == 2 and not server.connections.opening)
        refusal = await server.ask()
        assert refusal.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close\r\n" in refusal
        server.app.go.set()
        assert all(b"200 OK" in answer for answer in await asyncio.gather(*busy))
        assert b"200 OK" in await server.ask()
        assert server.app.refused == ["full"]


async def test_an_address_with_too_many_connections_is_told_what_to_do() -> None:
    async with serving(per_address=1) as server:
        await server.connect()
        for _ in range(3):
            refusal = await server.ask()
            assert refusal.startswith(b"HTTP/1.1 503 ")
            assert b"CTR_TRUSTED_PROXIES" in refusal
        assert server.app.refused == ["address"] * 3


async def test_an_accept_that_fails_neither_spins_nor_ends_the_server() -> None:
    async with serving() as server:
        await server.connect()
        await async_until(lambda: server.connections.opening)
        server.listener.failures, server.listener.calls = 3, 0
        assert b"200 OK" in await server.ask()
        assert server.listener.calls <= 3 + 3, "once every PAUSE_S while it fails"
        assert server.app.refused == ["evicted"], "a connection that waits gives its descriptor up"
