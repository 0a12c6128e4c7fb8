"""The load generator runs against a server that answers as the test says: what is counted, and from when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httptools
import msgspec
import pytest

from app.errors import ConfigError
from app.loadgen.generator import LoadGenerator
from app.loadgen.requests import rank_bodies
from app.loadgen.result import LoadResult

BODIES = rank_bodies(["u"], ["a", "b", "c"], 2, count=4)


class Server(asyncio.Protocol):
    """Answers each request of one connection with what `answer` returns for its number; None closes the connection."""

    def __init__(self, seen: list[bytes], answer: Callable[[int], bytes | None], delay_s: float) -> None:
        self._seen, self._answer, self._delay_s = seen, answer, delay_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._seen.append(body)

    def on_message_complete(self) -> None:
        asyncio.get_running_loop().call_later(self._delay_s, self._respond, len(self._seen))

    def _respond(self, number: int) -> None:
        answer = self._answer(number)
        if answer is None:
            self._transport.abort()
        else:
            self._transport.write(answer)


def response(body: bytes, status: int = 200, close: bool = False) -> bytes:
    head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n"
    return (head + ("Connection: close\r\n" if close else "") + "\r\n").encode() + body


GOOD = response(b'{"version":7,"degraded":[],"items":[]}')


def run_load(
    load: Callable[[LoadGenerator], Awaitable[LoadResult]],
    answer: Callable[[int], bytes | None] = lambda number: GOOD,
    delay_s: float = 0.0,
) -> tuple[LoadResult, list[bytes]]:
    """Run a load against the server; return the result and the bodies that were sent."""
    seen: list[bytes] = []

    async def run() -> LoadResult:
        server = await asyncio.get_running_loop().create_server(lambda: Server(seen, answer, delay_s), "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            return await load(LoadGenerator(f"http://{host}:{port}", BODIES))

    return asyncio.run(run()), seen


def test_every_request_of_an_open_loop_is_sent_and_counted() -> None:
    result, seen = run_load(lambda generator: generator.open(400, 0.25, connections=4))
    assert len(seen) == sum(result.statuses.values()) == 100
    assert result.statuses == {200: 100}
    assert result.versions == {7: 100}
    assert (result.failed, result.degraded) == (0, 0)
    assert set(seen) == set(BODIES)


def test_a_service_that_falls_behind_cannot_hide_it() -> None:
    """With one connection, 50 arrivals at once and 10 ms per answer, the last comes half a second late."""
    result, _ = run_load(lambda generator: generator.open(50_000, 0.001, connections=1), delay_s=0.01)
    latencies = sorted(result.latencies_s)
    assert len(latencies) == 50
    assert latencies[-1] > 40 * 0.01
    assert latencies[25] > 20 * 0.01


def test_a_closed_loop_keeps_as_many_at_work_as_it_is_told() -> None:
    result, seen = run_load(lambda generator: generator.closed(3, 0.2), delay_s=0.02)
    assert 3 <= len(seen) == result.statuses[200] <= 3 * 12


def test_a_closed_loop_can_be_stopped() -> None:
    under_way: list[LoadGenerator] = []

    async def load(generator: LoadGenerator) -> LoadResult:
        under_way.append(generator)
        return await generator.closed(2, 60)

    def answer(number: int) -> bytes:
        if number == 5:
            under_way[0].stop()
        return GOOD

    result, seen = run_load(load, answer)
    assert 5 <= result.statuses[200] == len(seen) <= 6


@pytest.mark.parametrize(
    ("wrong", "status"),
    [(None, 0), (response(b"{}", 503), 503), (response(b"{}", 503, close=True), 503), (b"no HTTP\r\n\r\n", 0)],
    ids=["connection lost", "refused", "refused and closed", "not HTTP"],
)
def test_what_failed_is_counted_and_the_rest_goes_on(wrong: bytes | None, status: int) -> None:
    result, _ = run_load(
        lambda generator: generator.open(400, 0.1, connections=2), lambda number: wrong if number % 4 == 0 else GOOD
    )
    assert result.failed == result.statuses[status] == 10
    assert result.statuses[200] == len(result.latencies_s) == 30


def test_degraded_answers_and_versions_are_told_apart() -> None:
    result, _ = run_load(
        lambda generator: generator.open(400, 0.05),
        lambda number: response(b'{"version":%d,"degraded":["model_fallback"]}' % (number % 2)),
    )
    assert result.degraded == 20
    assert result.versions == {0: 10, 1: 10}


def test_a_summary_without_an_answer_has_no_latency() -> None:
    summary = LoadResult(statuses=LoadResult().statuses).summary()
    assert summary["latency_ms"]["p50"] is None
    msgspec.json.encode(summary)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "https://127.0.0.1", "http://"])
def test_a_bad_address_is_a_clear_error(url: str) -> None:
    with pytest.raises(ConfigError, match="expected http://host:port"):
        LoadGenerator(url, BODIES)


def test_bodies_are_of_distinct_candidates() -> None:
    for body in rank_bodies(["1", "2"], [str(n) for n in range(30)], 20, count=50):
        request = msgspec.json.decode(body)
        assert len(set(request["item_ids"])) == 20
        assert request["user_id"] in "12"
