"""`ServerConfig`: what the server knows beside uvicorn's own configuration."""

from __future__ import annotations

from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.errors import RequestError
from app.runtime.connections import Connections

Answer = tuple[list[tuple[bytes, bytes]], bytes]
"""The headers and the body of an answer."""


class ServerConfig(uvicorn.Config):
    """Adds to uvicorn's configuration what `HttpProtocol` and `Acceptor` read."""

    connections: Connections
    max_header_bytes: int
    """Most bytes of a request's head."""
    draining: bool = False
    """Whether the process is about to stop, so that connections end after their next answer."""
    shed: Callable[[bytes], bytes | None]
    """Answers a request of an overloaded process in the place of the application; returns None for all others."""
    answer_to: Callable[[RequestError], Answer]
    """Makes the answer to what is not a request."""

    def encode_refusal(self, error: RequestError) -> bytes:
        """Return the bytes of the answer to what is not a request; it ends the connection."""
        headers, body = self.answer_to(error)
        lines = [b"%b: %b\r\n" % header for header in (*headers, (b"connection", b"close"))]
        return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body])
