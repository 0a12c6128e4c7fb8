"""What a client sees of the server as `ctr serve` configures it: whole requests, odd ones, and what is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app.errors import RequestError
from app.runtime.connections import ConnectionLimits, Connections
from app.runtime.http_protocol import RECEIVED_AT
from app.runtime.processes.server import server_config
from app.runtime.server_config import Answer
from app.settings import Settings

pytestmark = pytest.mark.anyio

SHED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n"


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

    def can_write_eof(self) -> bool:
        return True

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

    def refusal(self, error: RequestError) -> Answer:
        body = str(error).encode()
        return [(b"content-length", b"%d" % len(body))], body


async def until(holds: Callable[[], object]) -> None:
    """Wait until something is true; a minute at most."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - there is nothing that sets an event
            await asyncio.sleep(0.01)


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


async def test_what_the_application_sheds_is_answered_unparsed_between_requests_alone(ask: Connection) -> None:
    shed, ordinary = b"GET /shed HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"
    for _ in range(2):
        assert await ask(shed) == SHED
        assert await ask(ordinary) == HEAD + b"\r\ndone"
    assert await ask(ordinary, shed) == (HEAD + b"\r\ndone") * 2, "the answer before it is not complete"
    assert await ask(b"GET / HTTP/1.1\r\nX: ", b"y\r\n\r\n") == HEAD + b"\r\ndone"
    ask.app.sheds = False
    assert await ask(shed) == HEAD + b"\r\ndone"
    assert not ask.transport.closed
    assert len(ask.app.connections.idle) == 1


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


async def test_a_client_that_asks_whether_to_go_on_is_told_at_once(ask: Connection) -> None:
    first = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert await ask(first) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert await ask(b"{}") == HEAD + b"\r\ndone"


@pytest.mark.parametrize("pieces", [1, 2, 1000], ids=["one packet", "two packets", "a byte a packet"])
@pytest.mark.parametrize("body", ["length", "chunks", "none"])
@pytest.mark.parametrize(
    "offer",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\n",
        b"Upgrade: h2c\r\nConnection: upgrade\r\nConnection: keep-alive\r\n",
        b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\nupgrade: foo\r\n",
    ],
)
async def test_an_offer_to_change_the_protocol_is_answered_like_any_other_request(
    ask: Connection, offer: bytes, body: str, pieces: int
) -> None:
    length, sent = {
        "length": (b"Content-Length: 7\r\n", b'{"a":1}'),
        "chunks": (b"Transfer-Encoding: chunked\r\n", b'3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n'),
        "none": (b"", b""),
    }[body]
    method = b"GET" if body == "none" else b"POST"
    head = method + b" /echo HTTP/1.1\r\nHost: service\r\n" + offer + length + b"\r\n"
    packets = {1: [head + sent], 2: [head, sent], 1000: [bytes([byte]) for byte in head + sent]}[pieces]
    expected = method + (b" " if body == "none" else b' {"a":1}')
    for _ in range(2):  # the connection goes on
        assert (await ask(*packets)).endswith(b"\r\n\r\n" + expected)
    assert not ask.transport.closed


async def test_an_offer_among_requests_that_follow_each_other(ask: Connection) -> None:
    offer = b"POST /echo HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}"
    plain = b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\n\r\n3"
    answers = await ask(plain + offer + plain + offer)
    assert [answer[-7:] for answer in answers.split(b"HTTP/1.1 200 OK")[1:]] == [b"\nPOST 3", b"POST {}"] * 2


async def test_an_offer_of_http_1_0_stays_http_1_0(ask: Connection) -> None:
    request = b"POST /echo HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}"
    assert (await ask(request)).endswith(b"POST {}")
    assert ask.transport.closed


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
async def test_the_application_knows_when_the_first_byte_of_a_request_was_read(ask: Connection, offer: bytes) -> None:
    packets = [b"P", b"OST /echo HTTP/1.1\r\n" + offer + b"Content-Length: 2\r\n", b"\r\n", b"{}"]
    for number in range(2):
        before = time.perf_counter()
        await ask(packets[0])
        after = time.perf_counter()
        assert (await ask(*packets[1:])).endswith(b"POST {}")
        assert before <= ask.app.received_at[number] <= after


@pytest.mark.parametrize(
    "target", [b"http://service/pieces", b"HTTP://service:80/pieces?a=/b", b"/pieces#x", b"/piec%65s"]
)
async def test_a_target_in_any_form_names_its_path(ask: Connection, target: bytes) -> None:
    assert await ask(b"GET " + target + b" HTTP/1.1\r\n\r\n") == HEAD + b"\r\ndone"


async def test_a_target_without_a_path_names_the_root(ask: Connection) -> None:
    for target in (b"http://service", b"http://service?a=1", b"*"):
        assert await ask(b"OPTIONS " + target + b" HTTP/1.1\r\n\r\n") == HEAD + b"\r\ndone"


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (b"nonsense\r\n\r\n", b"methods are upper-case"),
        (b"post /rank HTTP/1.1\r\n\r\n", b"methods are upper-case"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"plain HTTP, not TLS"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"speaks HTTP/1.1"),
        (b"GET /\r\n\r\n", b"speaks HTTP/1.1"),
        (b"GET / HTTP/2.0\r\n\r\n", b"speaks HTTP/1.1"),
        (b"GET / HTTP/3.0\r\n\r\n", b"malformed: "),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"malformed: "),
        (b"CONNECT service:80 HTTP/1.1\r\n\r\n", b"such as /rank"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"malformed: "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nlong\r\n", b"malformed: "),
    ],
)
async def test_what_is_not_http_is_refused_and_can_be_read(ask: Connection, sent: bytes, detail: bytes) -> None:
    refusal = await ask(sent)
    assert refusal.startswith(b"HTTP/1.1 400 "), refusal
    assert detail in refusal
    assert b"connection: close\r\n" in refusal
    assert ask.transport.ended
    assert not ask.transport.closed, "a socket closed over unread bytes would reset the connection"
    assert await ask(b"more of it") == b""


async def test_an_answer_under_way_comes_before_the_end_over_nonsense(ask: Connection) -> None:
    answers = await ask(b"GET / HTTP/1.1\r\n\r\nnonsense\r\n\r\n")
    assert answers == HEAD + b"connection: close\r\n\r\ndone"
    assert ask.transport.closed


@pytest.mark.parametrize("line", [b"a: b\r\n" * 1000, b"long: " + b"x" * 3000 + b"\r\n"], ids=["many", "one"])
@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["incomplete", "complete"])
async def test_headers_are_bounded_in_size(line: bytes, end: bytes) -> None:
    ask = Connection(max_header_bytes=2000)
    head = b"GET / HTTP/1.1\r\n" + line + end
    more = b"x" * 2001  # the size of an incomplete header is known with the packet after the one it began in
    for packets in ([head, more], [head[at : at + 100] for at in range(0, len(head), 100)]):
        refusal = await ask(*packets)
        assert refusal.startswith(b"HTTP/1.1 431 ")
        assert b"at most 2000 bytes" in refusal
        ask = Connection(max_header_bytes=2000)


async def test_a_target_is_bounded_in_size_and_a_body_before_a_head_does_not_count() -> None:
    refusal = await Connection(max_header_bytes=2000)(b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\n\r\n")
    assert refusal.startswith(b"HTTP/1.1 431 ")
    ask = Connection(max_header_bytes=2000)
    body = b"POST / HTTP/1.1\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000
    first = await ask(body + b"GET / HTTP/1.1\r\nHost: " + b"y" * 1000)
    assert first == HEAD + b"\r\ndone"
    assert await ask(b"y" * 500 + b"\r\n\r\n") == HEAD + b"\r\ndone"


async def test_a_head_is_bounded_in_time_from_when_the_connection_was_accepted() -> None:
    ask = Connection(header_timeout_s=0.05)
    assert await ask(b"GET / HTTP/1.1\r\nHost: ") == b""
    await until(lambda: ask.transport.ended)
    assert ask.transport.writes[0].startswith(b"HTTP/1.1 408 ")
    assert ask.app.refused == ["head_too_slow"]
    silent = Connection(header_timeout_s=0.05)
    await until(lambda: silent.transport.closed)
    assert silent.transport.writes == [], "nothing was asked"
    assert silent.app.refused == ["silent"]
    blank = Connection(header_timeout_s=0.05)
    assert await blank(b"\r\n") == b""
    await until(lambda: blank.transport.closed)


async def test_a_later_head_is_bounded_in_time_from_its_first_byte() -> None:
    ask = Connection(header_timeout_s=0.05)
    assert await ask(b"GET / HTTP/1.1\r\nHost: ", b"service\r\n\r\n") == HEAD + b"\r\ndone"
    connections = ask.app.connections
    assert list(connections.idle) == [ask.protocol], "an idle connection has the time of one"
    assert await ask(b"G") == b""
    assert list(connections.heads) == [ask.protocol]
    since = connections.heads[ask.protocol]
    assert await ask(b"ET / HTTP/1.1\r\n") == b""
    assert connections.heads[ask.protocol] == since, "more of it takes no more time"
    await until(lambda: ask.transport.ended)
    assert ask.transport.writes[0].startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_goes_on_after_its_refusal_is_cut() -> None:
    ask = Connection()
    ask.app.connections.lingering.timeout_s = 0.05
    assert (await ask(b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert not ask.transport.closed
    while not ask.transport.closed:
        assert await ask(b"more") == b""
        await asyncio.sleep(0.01)


async def test_a_flood_after_a_refusal_is_not_read_for_long(ask: Connection) -> None:
    await ask(b"nonsense\r\n\r\n")
    for _ in range(4):
        assert not ask.transport.paused
        await ask(b"x" * 262_144)
    await ask(b"x")
    assert ask.transport.paused


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n\r\n"])
async def test_an_idle_connection_is_closed_when_it_was_said(sent: bytes) -> None:
    ask = Connection()
    assert ask.app.connections.idle.timeout_s == 75, "longer than the 60 s of the usual proxy"
    await ask(sent)
    assert ask.app.connections.idle[ask.protocol] <= time.monotonic()
    ask.app.connections.idle.timeout_s = 0.05
    await until(lambda: ask.transport.closed)
    assert ask.app.refused == []


async def test_a_request_at_work_waits_for_nothing(ask: Connection) -> None:
    connections = ask.app.connections
    assert list(connections.opening) == [ask.protocol]
    ask.protocol.data_received(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{")
    assert list(connections.bodies) == [ask.protocol]
    ask.protocol.data_received(b"}")
    assert not any((connections.opening, connections.bodies, connections.idle))
    assert await ask() == HEAD + b"\r\ndone"
    assert list(connections.idle) == [ask.protocol]


async def test_a_client_that_does_not_read_is_given_up(ask: Connection) -> None:
    connections = ask.app.connections
    ask.protocol.pause_writing()
    assert list(connections.unread) == [ask.protocol]
    ask.protocol.resume_writing()
    assert await ask(b"GET / HTTP/1.1\r\n\r\n") == HEAD + b"\r\ndone"
    ask.protocol.pause_writing()
    connections.unread.timeout_s = 0.05
    await until(lambda: ask.transport.closed)


async def test_a_client_that_has_ended_its_side_is_answered(ask: Connection) -> None:
    ask.protocol.data_received(b"GET /echo HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert ask.protocol.eof_received(), "the transport stays open"
    answers = await ask()
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.endswith(b"connection: close\r\n\r\ndone")
    assert ask.transport.closed


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{", b"GET / HTTP/1.1\r\n\r\n"],
    ids=["nothing", "half a head", "half a body", "an answer had"],
)
async def test_a_client_that_has_ended_its_side_early_is_let_go(ask: Connection, sent: bytes) -> None:
    await ask(*[sent] * bool(sent))
    assert not ask.protocol.eof_received()


async def test_the_lines_of_a_head_are_bounded_in_number(ask: Connection) -> None:
    lines = b"".join(b"x%d: 1\r\n" % number for number in range(100))
    assert await ask(b"GET / HTTP/1.1\r\n" + lines + b"\r\n") == HEAD + b"\r\ndone"
    refusal = await ask(b"GET / HTTP/1.1\r\n" + lines + b"x: 1\r\n\r\n")
    assert refusal.startswith(b"HTTP/1.1 431 ")
    assert b"100 lines" in refusal


@pytest.mark.parametrize("rest", [b"0\r\nx: " + b"y" * 3000, b"1;a=" + b"y" * 3000], ids=["trailer", "extension"])
async def test_what_is_around_the_pieces_of_a_body_is_bounded_in_size(rest: bytes) -> None:
    ask = Connection(max_header_bytes=2000)
    chunks = b"".join(b"1\r\n%d\r\n" % (number % 10) for number in range(1000))
    head = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    small = [chunks[at : at + 7] for at in range(0, len(chunks), 7)]
    assert (await ask(head, *small, b"0\r\n\r\n")).endswith(b"0123456789"), "small chunks are a body"
    refusal = await ask(head, chunks, *[rest[at : at + 100] for at in range(0, len(rest), 100)])
    assert refusal.startswith(b"HTTP/1.1 431 ")
    assert ask.transport.ended


PLAIN = [b"POST /echo HTTP/1.1", b"Host: service", b"Content-Type: application/json"]
OFFERS = [
    [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAB"],
    [b"Upgrade: websocket", b"Connection: keep-alive, upgrade"],
    [],
]


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A request and the body that it has."""
    body = draw(st.binary(max_size=40))
    lines = PLAIN + draw(st.sampled_from(OFFERS))
    if draw(st.booleans()):
        return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body, body
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(body) - 1)), max_size=3))) if len(body) > 1 else []
    pieces = [body[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n" + chunks + b"0\r\n\r\n", body


@given(st.lists(requests(), min_size=1, max_size=4), st.data())
def test_requests_are_answered_in_order_however_they_are_cut_into_packets(
    sent: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(request for request, _ in sent)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=6)))
    packets = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    async def converse() -> bytes:
        ask = Connection()
        answers = await ask(*packets)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not ask.transport.closed
        ask.end()
        return answers

    expected = [b"POST " + body for _, body in sent]
    assert asyncio.run(converse()) == b"".join(
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer) for answer in expected
    )
