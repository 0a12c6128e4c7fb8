"""Tests of the bounds of a connection: the size of a head, and the time of whatever it waits for from its client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.runtime.served import HEAD, Connection
from tests.waiting import async_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ask() -> AsyncIterator[Connection]:
    connection = Connection()
    yield connection
    connection.end()


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
    await async_until(lambda: ask.transport.ended)
    assert ask.transport.writes[0].startswith(b"HTTP/1.1 408 ")
    assert ask.app.refused == ["head_too_slow"]
    silent = Connection(header_timeout_s=0.05)
    await async_until(lambda: silent.transport.closed)
    assert silent.transport.writes == [], "nothing was asked"
    assert silent.app.refused == ["silent"]
    blank = Connection(header_timeout_s=0.05)
    assert await blank(b"\r\n") == b""
    await async_until(lambda: blank.transport.closed)


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
    await async_until(lambda: ask.transport.ended)
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
    await async_until(lambda: ask.transport.closed)
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
    await async_until(lambda: ask.transport.closed)


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
