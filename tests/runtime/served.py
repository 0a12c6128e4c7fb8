"""An application behind the server as `ctr serve` configures it, and one connection to it without a network."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app.errors import RequestError
from app.runtime.connections import ConnectionLimits, Connections
from app.runtime.http_protocol import RECEIVED_AT
from app.runtime.processes.server import server_config
from app.runtime.server_config import Answer
from app.settings import Settings

SHED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n"
"""The head of the answer `done`, but for its last line."""


class FakeTransport(asyncio.Transport):
    """Keeps what is written to the client."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False
        self.paused = False
        self.ended = False
        """Whether no more can be written."""

    def write(self, data: Any) -> None:
        assert not self.closed
        assert not self.ended
        self.writes.append(bytes(data))

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def respond(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer `done`: at /pieces in two pieces, at /breaks not to its end; at /echo with what was asked."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/echo":
        content = b"%b %b" % (scope["method"].encode(), body)
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]}
        )
        await send({"type": "http.response.body", "body": content})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    if scope["path"] == "/breaks":
        raise ValueError
    if scope["path"] == "/pieces":
        await send({"type": "http.response.body", "body": b"do", "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(b"ne")})
    else:
        await send({"type": "http.response.body", "body": b"done"})


class App:
    """An application for `server_config`."""

    def __init__(self, settings: Settings) -> None:
        self.received_at: list[float] = []
        self.refused: list[str] = []
        self.sheds = True
        limits = ConnectionLimits(10, 10, settings.header_timeout_s, settings.keep_alive_s)
        self.connections = Connections(limits, self.refused.append)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.received_at.append(scope["state"][RECEIVED_AT])
        await respond(scope, receive, send)

    def ready(self) -> bool:
        return True

    def drain(self) -> None:
        pass

    def shed(self, data: bytes) -> bytes | None:
        return SHED if data.startswith(b"GET /shed ") and self.sheds else None

    def answer_to(self, error: RequestError) -> Answer:
        body = str(error).encode()
        return [(b"content-length", b"%d" % len(body))], body


class Connection:
    """One connection; calling it sends requests and returns what is written in answer."""

    def __init__(self, **settings: Any) -> None:
        chosen = Settings(_env_file=None, **settings)
        self.app = App(chosen)
        config = server_config(chosen, self.app)
        config.load()
        self.transport = FakeTransport()
        self.protocol = config.http_protocol_class(config, ServerState(), {})
        self.protocol.connection_made(self.transport)

    async def __call__(self, *requests: bytes) -> bytes:
        self.transport.writes.clear()
        for request in requests:
            self.protocol.data_received(request)
        for _ in range(20):
            await asyncio.sleep(0)
        return b"".join(self.transport.writes)

    def end(self) -> None:
        self.protocol.connection_lost(None)
