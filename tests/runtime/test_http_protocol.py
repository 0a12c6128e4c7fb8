"""What a client sees of the server as `ctr serve` configures it: whole requests, odd ones, and what is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.served import HEAD, SHED, Connection

pytestmark = pytest.mark.anyio


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


async def test_a_client_that_is_gone_before_any_of_its_pipelined_requests_is_answered_is_no_error(
    ask: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    ask.protocol.data_received(b"GET / HTTP/1.1\r\n\r\n" * 3)
    ask.transport.closed = True
    ask.protocol.connection_lost(ConnectionResetError())
    assert await ask() == b""
    assert caplog.records == []


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
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", b"several Host headers"),
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
