"""`HttpProtocol`: uvicorn's HTTP/1.1 protocol, for clients as they are.

It adds what uvicorn leaves open. An offer to change the protocol (`Upgrade: h2c`, which every Java HttpClient makes) is
declined by answering the request as if there were none, which RFC 9110, 7.8 allows; llhttp alone would take the body
for the other protocol. The size of a request's head is bounded, and the time of whatever a connection waits for
(`app.runtime.connections`). What is not HTTP is refused with a problem that says what was expected, and the client is
left time to read it. A client that has ended its own side is answered.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.errors import NotHttp, Overloaded, RequestError
from app.runtime.connections import ConnectionRefused, Queue
from app.runtime.request_forms import (
    MAX_HEADER_LINES,
    describe_malformed,
    head_without_offer,
    require_one_host,
    target_of,
    too_large,
    too_slow,
)
from app.runtime.server_config import ServerConfig

RECEIVED_AT = "received_at"
"""The name in `scope["state"]` of the time, by `time.perf_counter`, at which the first byte of a request was read."""
MAX_DISCARDED = 1 << 20
"""Bytes that are read and thrown away after a refusal; the buffers of the kernel end what follows."""


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    config: ServerConfig

    def __init__(self, config: ServerConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self._connections = config.connections
        self.refusal: ConnectionRefused | None = None
        """Why the connection is refused as soon as it is made."""
        self._queue: Queue | None = None
        """The queue of `Connections` that this one waits in; None while a request is at work."""
        self._in_head = False
        """Whether a request has begun whose head is not complete."""
        self._at_work: RequestResponseCycle | None = None
        """The request that the application answers; `cycle` is the last of those that were sent without waiting."""
        self._head_size = 0
        """Bytes of the headers that were parsed."""
        self._part_received = 0
        """Bytes of packets that were nothing but a part of the head, or of what follows the last chunk of a body."""
        self._progressed = False
        """Whether a packet held the end of the head or a piece of the body."""
        self._refused = False
        self._discarded = 0
        """Bytes that were received after a refusal."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._queue = self._connections.opened(self, self.client[0] if self.client else "")
        if self.refusal is not None:
            self._refuse(self.refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_in(None)
        self._connections.remove(self)
        if self._at_work is not None and not self._at_work.response_complete:
            self._at_work.disconnected = True
            self._at_work.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED:
                self.flow.pause_reading()
            return
        if not self._in_head and self._shed(data):
            return
        begun = self.headers if self._in_head else None  # a list of its own for each request
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, RequestError) else NotHttp(describe_malformed(data, error)))
            return
        if self._in_head:
            self._bound_part(len(data) if self.headers is begun else 0, "head")
        elif self.cycle is not None and self.cycle.more_body:
            self._bound_part(0 if self._progressed else len(data), "trailer section")
            self._progressed = False
        if not self._refused:
            self._wait_in(self._awaited())

    def eof_received(self) -> Any:  # uvicorn's returns None
        """Answer a request that is complete, although its client has ended its side; end any other connection."""
        if self._refused or self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False  # the cycle of the last request; those before it are answered first
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_in(self._awaited())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wait_in(self._awaited())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][RECEIVED_AT] = time.perf_counter()
        self._in_head = True
        self._head_size = self._part_received = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self.config.max_header_bytes or len(self.headers) >= MAX_HEADER_LINES:
            raise too_large("head", self.config.max_header_bytes)
        super().on_header(name, value.strip(b" \t"))  # what is around a value is no part of it, RFC 9110, 5.5

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._progressed = True
        self._part_received = 0
        self.url = target_of(self.url, self.parser.get_http_version(), self.config.max_header_bytes)
        require_one_host(self.headers)
        super().on_headers_complete()
        if self.config.draining:
            self.end_after_answer()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._at_work = cycle
        super()._start_asgi_task(cycle, app)

    def end_after_answer(self) -> None:
        """Close the connection after the answer to the request that is being handled, if there is one, and say so."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._progressed = True
        self._part_received = 0
        if self.cycle.response_complete and not self._offers_protocol():
            self.transport.close()  # the application has read as much as it would
            return
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Go on with the next request; in place of uvicorn's timer, `Connections` bounds how long there may be none."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._wait_in(self._awaited())

    def on_timeout(self) -> None:
        """End the connection, which has waited its time out; called by `Connections`, which has forgotten it."""
        self._queue = None
        if self._refused or not self._in_head or not (self.cycle is None or self.cycle.response_complete):
            if not self._refused and self.cycle is None:
                self._connections.on_refused("silent")
            self._end()
        else:
            self._refuse(too_slow(self._connections.heads.timeout_s))

    def on_evicted(self) -> None:
        """End the connection to make room for another; called by `Connections`, which has forgotten it."""
        self._queue = None
        unanswered = self._in_head or (self.cycle is not None and not self.cycle.response_started)
        if unanswered and not self._refused and not self.flow.write_paused:
            self.transport.write(self.config.encode_refusal(Overloaded("the connection made room for others")))
            self.transport.close()
        else:
            self._end()

    def _awaited(self) -> Queue | None:
        """Return the queue for what the connection waits for now."""
        cycle = self.cycle
        if self.flow.write_paused:
            return self._connections.unread
        if cycle is not None and not cycle.response_complete:
            return self._connections.bodies if cycle.more_body and not self.pipeline else None
        if cycle is None:
            return self._queue
        return self._connections.heads if self._in_head else self._connections.idle

    def _shed(self, data: bytes) -> bool:
        """Answer what was read between two requests if that is refused unparsed, and return whether it is."""
        begun = self.cycle is not None and (self.cycle.more_body or not self.cycle.response_complete)
        if begun or self.flow.write_paused or self.config.draining or not (answer := self.config.shed(data)):
            return False
        self.transport.write(answer)
        self._wait_in(None)
        self._wait_in(self._connections.idle)
        return True

    def _wait_in(self, queue: Queue | None) -> None:
        """Wait in a queue, at its end unless the connection is in it already."""
        if queue is not self._queue:
            if self._queue is not None:
                self._queue.pop(self, None)
            if queue is not None:
                queue[self] = time.monotonic()
            self._queue = queue

    def _should_upgrade(self) -> bool:
        """Return whether the parser leaves the body to another protocol; uvicorn asks while it handles a request."""
        return self._offers_protocol()

    def _offers_protocol(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _decline(self, rest: bytes) -> None:
        """Parse the request again without its offer; `rest` is what was received behind its head."""
        received_at = self.scope["state"][RECEIVED_AT]
        version = self.scope["http_version"].encode()
        head = head_without_offer(self.scope["method"].encode(), self.url, version, self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(head)
        self.scope["state"][RECEIVED_AT] = received_at
        if rest:
            self.data_received(rest)

    def _bound_part(self, received: int, part: str) -> None:
        """Bound a part of a request that is not complete, of which a packet had these bytes and nothing else."""
        self._part_received += received
        if self._part_received > self.config.max_header_bytes or len(self.url) > self.config.max_header_bytes:
            self._refuse(too_large(part, self.config.max_header_bytes))

    def _refuse(self, error: RequestError) -> None:
        """Answer what cannot be read as a request, and end the connection; requests before it are answered first."""
        self._refused = True
        self._connections.count_refusal(error)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not (cycle.more_body and not cycle.response_started):
            for waiting in (cycle, *(pipelined for pipelined, _ in self.pipeline)):
                waiting.keep_alive = False
            return
        self.transport.write(self.config.encode_refusal(error))
        if cycle is not None:  # its body is what cannot be read
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write_eof()
        self._wait_in(self._connections.lingering)

    def _end(self) -> None:
        """Close the connection; at once where its client does not read what is still to be sent."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()
