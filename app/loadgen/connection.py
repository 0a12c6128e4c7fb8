"""`LoadConnection`: one keep-alive connection of the load generator, with one request at a time."""

from __future__ import annotations

import asyncio
from typing import Protocol

import httptools

RECONNECT_S = 0.05


class ConnectionListener(Protocol):
    """A run to which a connection reports."""

    def on_answer(self, connection: LoadConnection, status: int, body: bytes, *, reusable: bool) -> None:
        """Take an answer; the connection can send again if it is reusable, else the server closes it."""

    def on_lost(self, connection: LoadConnection) -> None:
        """Take note that the connection is gone; if it is `waiting`, its request got no whole answer."""


class LoadConnection(asyncio.Protocol):
    """Sends requests and reports each answer, or that there is none."""

    def __init__(self, listener: ConnectionListener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._body: list[bytes] = []
        self.waiting = False
        """Whether a request was sent and its answer is not complete."""
        self.due = 0.0
        """`time.perf_counter()` at which the request was due."""
        self.reconnect_s = RECONNECT_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._parser = httptools.HttpResponseParser(self)

    def send(self, request: bytes, due: float) -> None:
        """Send a request; the connection must be open and not `waiting`."""
        assert self._transport is not None
        self.waiting, self.due = True, due
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
        self.waiting = False
        reusable = self._parser.should_keep_alive()
        self._listener.on_answer(self, self._parser.get_status_code(), body, reusable=reusable)
        if not reusable:
            self.reconnect_s = 0.0  # the server closes after each answer; it has not refused
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._listener.on_lost(self)
