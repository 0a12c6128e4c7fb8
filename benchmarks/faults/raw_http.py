"""`exchange`: bytes as they are sent to the service, and whatever comes back, however it ends."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import httptools

from benchmarks.faults.service import Service

RECEIVE = 1 << 16


@dataclass
class Exchange:
    """What came back on one connection."""

    statuses: list[int] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    """The content type of each answer."""
    sizes: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    sent: int = 0
    closed: bool = False
    """Whether the service ended the connection."""
    malformed: bool = False
    """Whether what came back is no HTTP."""
    seconds: float = 0.0

    @property
    def status(self) -> int:
        """The first answer's status; 0 without one."""
        return self.statuses[0] if self.statuses else 0


class _Answers:
    """The callbacks of the parser."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._type = ""
        self._body: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._type = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        if status >= 200:  # 100 Continue announces another
            body = b"".join(self._body)
            self._exchange.statuses.append(status)
            self._exchange.types.append(self._type)
            self._exchange.sizes.append(len(body))
            self._exchange.bodies.append(body)
        self._type, self._body = "", []


def exchange(
    service: Service,
    pieces: Iterable[bytes],
    *,
    answers: int = 1,
    timeout_s: float = 10.0,
    half_close: bool = False,
) -> Exchange:
    """Send the pieces, reading all the while, until so many answers came, the service closes or time is up.

    Args:
        half_close: shut the sending side once all is sent, as clients do that have nothing more to say.
    """
    result, began = Exchange(), time.monotonic()
    collected = _Answers(result)
    rest = iter(pieces)
    pending = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=timeout_s) as connection:
        connection.setblocking(False)
        sending = True
        while time.monotonic() - began < timeout_s and not result.closed and len(result.statuses) < answers:
            if sending and not pending:
                try:
                    pending = next(rest)
                except StopIteration:
                    sending = False
                    if half_close:
                        connection.shutdown(socket.SHUT_WR)
            readable, writable, _ = select.select([connection], [connection] if pending else [], [], 0.05)
            if writable:
                with contextlib.suppress(BlockingIOError):
                    try:
                        sent = connection.send(pending)
                    except OSError:
                        sending, pending = False, b""
                    else:
                        result.sent += sent
                        pending = pending[sent:]
            if readable:
                _receive(connection, service, collected, result)
        if not result.closed:
            result.closed = _closes(connection, service, collected, result)
    result.seconds = time.monotonic() - began
    return result


def _receive(connection: socket.socket, service: Service, collected: _Answers, result: Exchange) -> None:
    try:
        data = connection.recv(RECEIVE)
    except BlockingIOError:
        return
    except OSError:
        result.closed = True
        return
    if not data:
        result.closed = True
        return
    service.secrets.look(data, "raw")
    try:
        collected.parser.feed_data(data)
    except httptools.HttpParserError:
        result.malformed = result.closed = True


def _closes(connection: socket.socket, service: Service, collected: _Answers, result: Exchange) -> bool:
    """Whether the service closes the connection within a moment of its answer."""
    if select.select([connection], [], [], 0.05)[0]:
        _receive(connection, service, collected, result)
    return result.closed
