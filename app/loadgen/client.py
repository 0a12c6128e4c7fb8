"""One keep-alive connection of the load generator, with one request at a time."""

from __future__ import annotations

import asyncio
from typing import Protocol

import httptools

RECONNECT_S = 0.05


class Run(Protocol):
    """Whom a client tells."""

    def answered(self, client: Client, status: int, body: bytes) -> None:
        """The connection is free again."""

    def count(self, due: float, status: int, body: bytes) -> None:
        """An answer after which the server closes."""

    def lost(self, client: Client) -> None:
        """The connection is gone; `client.asked` where a request went with it."""


class Client(asyncio.Protocol):
    """Tells its run of the answer, or of there being none."""

    def __init__(self, run: Run) -> None:
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
