"""What a client sees of the server as `ctr serve` configures it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app.runtime.processes import server_config
from app.settings import Settings

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n"


class FakeTransport(asyncio.Transport):
    """Keeps what is written to the client."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer `done`: at /pieces in two pieces, at /breaks not to its end."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    if scope["path"] == "/breaks":
        raise ValueError
    if scope["path"] == "/pieces":
        await send({"type": "http.response.body", "body": b"do", "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(b"ne")})
    else:
        await send({"type": "http.response.body", "body": b"done"})


class Connection:
    """One connection; calling it sends requests and returns what is written in answer."""

    def __init__(self) -> None:
        config = server_config(Settings(_env_file=None), app)  # type: ignore[arg-type]
        config.load()
        self.transport = FakeTransport()
        self._protocol = config.http_protocol_class(config, ServerState(), {})
        self._protocol.connection_made(self.transport)

    async def __call__(self, *requests: bytes) -> bytes:
        self.transport.writes.clear()
        for request in requests:
            self._protocol.data_received(request)
        for _ in range(20):
            await asyncio.sleep(0)
        return b"".join(self.transport.writes)

    def end(self) -> None:
        self._protocol.connection_lost(None)


@pytest.fixture
async def ask() -> AsyncIterator[Connection]:
    connection = Connection()
    yield connection
    connection.end()


async def test_answers_follow_each_other_on_a_connection(ask: Connection) -> None:
    for _ in range(2):
        assert await ask(b"GET / HTTP/1.1\r\n\r\n") == HEAD + b"\r\ndone"
    both = await ask(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert both == (HEAD + b"\r\ndone") * 2, "pipelined"
    assert not ask.transport.paused
    assert not ask.transport.closed


async def test_an_answer_in_pieces_is_put_together(ask: Connection) -> None:
    assert await ask(b"GET /pieces HTTP/1.1\r\n\r\n") == HEAD + b"\r\ndone"


async def test_an_answer_without_a_body_is_sent(ask: Connection) -> None:
    assert await ask(b"HEAD / HTTP/1.1\r\n\r\n") == HEAD + b"\r\n"


async def test_an_answer_that_ends_the_connection_is_sent_first(ask: Connection) -> None:
    assert await ask(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n") == HEAD + b"connection: close\r\n\r\ndone"
    assert ask.transport.closed


async def test_an_answer_that_breaks_off_looks_broken(ask: Connection) -> None:
    assert await ask(b"GET /breaks HTTP/1.1\r\n\r\n") == HEAD + b"\r\n"
    assert ask.transport.closed


async def test_what_is_not_http_is_refused(ask: Connection) -> None:
    refusal = await ask(b"nonsense\r\n\r\n")
    assert refusal.startswith(b"HTTP/1.1 400 ")
    assert ask.transport.closed


async def test_a_client_that_asks_whether_to_go_on_is_told_at_once(ask: Connection) -> None:
    first = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert await ask(first) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert await ask(b"{}") == HEAD + b"\r\ndone"


async def test_an_upgrade_is_answered_like_any_other_request(ask: Connection) -> None:
    request = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert await ask(request) == HEAD + b"\r\ndone"
