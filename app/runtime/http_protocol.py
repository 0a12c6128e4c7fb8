"""`HttpProtocol`: uvicorn's HTTP/1.1 protocol, for clients as they are.

It adds what uvicorn leaves open. An offer to change the protocol (`Upgrade: h2c`, which every Java HttpClient makes) is
declined by answering the request as if there were none, which RFC 9110, 7.8 allows; llhttp alone would take the body
for the other protocol. The size and the time of a request's head are bounded, and so is a connection that says nothing.
What is not HTTP is refused with a problem that says what was expected, and the client is left time to read it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import httptools
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.errors import HeadTooLarge, HeadTooSlow, NotHttp, RequestError
from app.observability.logs import LogThrottle

LINGER_S = 5.0
"""How long what a client still sends is thrown away after a refusal: a socket that is closed over unread bytes resets
the connection, and the client loses the answer."""

RECEIVED_AT = "received_at"
"""The name in `scope["state"]` of the time, by `time.perf_counter`, at which the first byte of a request was read."""

HTTP_2_PREFACE, TLS_HANDSHAKE = b"PRI * HTTP/2", b"\x16\x03"
OFFER = frozenset({b"upgrade", b"http2-settings"})
"""The headers of an offer to change the protocol, and their tokens in Connection."""

Answer = tuple[list[tuple[bytes, bytes]], bytes]
"""The headers and the body of an answer."""

log = structlog.get_logger(__name__)
_log_throttle = LogThrottle()


class ServerConfig(uvicorn.Config):
    """Adds to uvicorn's configuration what `HttpProtocol` reads."""

    max_header_bytes: int
    """Most bytes of a request's head."""
    header_timeout_s: float
    """Seconds that a head may take from its first byte to its last."""
    refusal: Callable[[RequestError], Answer]
    """Makes the answer to what is not a request."""


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    config: ServerConfig

    def __init__(self, config: ServerConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self._in_head = False
        """Whether a request has begun whose head is not complete."""
        self._head_size = 0
        """Bytes of the headers that were parsed."""
        self._head_received = 0
        """Bytes of packets that were nothing but a part of the head."""
        self._head_due: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._keep_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        self._unset_head_due()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        begun = self.headers if self._in_head else None  # a list of its own for each request
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, RequestError) else NotHttp(_what_it_is(data, error)))
            return
        if self._in_head:
            self._wait_for_head(len(data) if self.headers is begun else 0)
        elif (self.cycle is None or self.cycle.response_complete) and self.timeout_keep_alive_task is None:
            self._keep_idle()  # blank lines between requests

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][RECEIVED_AT] = time.perf_counter()
        self._in_head = True
        self._head_size = self._head_received = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self.config.max_header_bytes:
            raise self._head_too_large()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_due is not None:
            self._unset_head_due()
        if len(self.url) > self.config.max_header_bytes:
            raise self._head_too_large()
        if not self.url.startswith(b"/"):
            self.url = _origin_form(self.url)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete and not self._offers_protocol():
            self.transport.close()  # the application has read as much as it would
            return
        super().on_body(body)

    def _should_upgrade(self) -> bool:
        """Return whether the parser leaves the body to another protocol; uvicorn asks while it handles a request."""
        return self._offers_protocol()

    def _offers_protocol(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _decline(self, rest: bytes) -> None:
        """Parse the request again without its offer; `rest` is what was received behind its head."""
        head = [self.scope["method"].encode(), b" ", self.url, b" HTTP/%b\r\n" % self.scope["http_version"].encode()]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                value = b", ".join(token for token in tokens if token.lower() not in OFFER)
            if name not in OFFER:
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        received_at = self.scope["state"][RECEIVED_AT]
        self.data_received(b"".join(head) + b"\r\n")
        self.scope["state"][RECEIVED_AT] = received_at
        if rest:
            self.data_received(rest)

    def _keep_idle(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _wait_for_head(self, received: int) -> None:
        """Bound a head of which some is still to come, and of which a packet had these bytes and nothing else."""
        self._head_received += received
        if self._head_received > self.config.max_header_bytes:
            self._refuse(self._head_too_large())
        elif self._head_due is None:
            timeout_s = self.config.header_timeout_s
            refusal = HeadTooSlow(
                f"it was not complete {timeout_s:g} s after it began; send it faster, or raise CTR_HEADER_TIMEOUT_S"
            )
            self._head_due = self.loop.call_later(timeout_s, self._refuse, refusal)

    def _unset_head_due(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(
            f"at most {self.config.max_header_bytes} bytes are read; send less, or raise CTR_MAX_HEADER_BYTES"
        )

    def _refuse(self, error: RequestError) -> None:
        """Answer what cannot be read as a request, and end the connection; requests before it are answered first."""
        self._refused = True
        self._unset_head_due()
        if _log_throttle.admits():
            log.warning("not_a_request", detail=str(error))
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not (cycle.more_body and not cycle.response_started):
            for waiting in (cycle, *(pipelined for pipelined, _ in self.pipeline)):
                waiting.keep_alive = False
            return
        headers, body = self.config.refusal(error)
        lines = [b"%b: %b\r\n" % header for header in (*headers, (b"connection", b"close"))]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body]))
        if cycle is not None:  # its body is what cannot be read
            cycle.disconnected = True
            cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()


def _origin_form(target: bytes) -> bytes:
    """Return the path and query of a target in absolute form, `http://host/rank`; others stay as they are."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or not scheme.isalpha():
        return target
    authority = rest.partition(b"/")[0].partition(b"?")[0]
    path = rest[len(authority) :]
    return path if path.startswith(b"/") else b"/" + path


def _what_it_is(data: bytes, error: httptools.HttpParserError) -> str:
    """Say what was received in place of a request, without repeating it."""
    if data.startswith(TLS_HANDSHAKE):
        return "this port speaks plain HTTP, not TLS: use http://, or have a proxy in front end TLS"
    if data.startswith(HTTP_2_PREFACE):
        return "this server speaks HTTP/1.1; have the client begin with it, or a proxy in front end HTTP/2"
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return "no such method; methods are upper-case, as in POST /rank HTTP/1.1"
    if isinstance(error, httptools.HttpParserInvalidURLError | httptools.HttpParserCallbackError):
        return "the request's target cannot be read; send a path such as /rank, percent-encoded"
    return f"the request is malformed: {str(error)[:100]}"
