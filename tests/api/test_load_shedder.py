"""Tests of refusing requests from their bytes: which are, what is answered, and that the server has all others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time

import httptools
import pytest

from app.api.load_shedder import LoadShedder
from app.errors import Overloaded
from app.ranking.admission import Admission
from app.ranking.overload import INTERVAL_S, LEAST_AT_ONCE

AT_ONCE = math.ceil(LEAST_AT_ONCE)

pytestmark = pytest.mark.anyio

BODY = json.dumps({"user_id": "4", "item_ids": [str(number) for number in range(100)]}).encode()


def request(*lines: bytes, body: bytes = BODY, first: bytes = b"POST /rank HTTP/1.1") -> bytes:
    lines = lines or (b"Content-Length: %d" % len(body),)
    return b"\r\n".join([first, b"Host: service", *lines, b"", body])


class Answer:
    """An answer as a client parses it."""

    def __init__(self, data: bytes) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.status = 0
        self.keeps_open = False
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.keeps_open = self._parser.should_keep_alive()


class Overload:
    """A load shedder of a process that is overloaded, and full."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.admission = Admission(1000, 0.005, lambda: 0.0, lambda: self.now)
        self.admission._rate.seconds_per_cost = 1e-6
        while not self.admission.overloaded:
            self.now += INTERVAL_S / 10
            with contextlib.suppress(Overloaded):
                self.admission.enter(1000, 1.0, 9)
        self.refused: list[Overloaded] = []
        self.shed = LoadShedder(self.admission, self.refused.append)

    def end(self, keep: int = 0) -> None:
        """Have the requests at work end but so many."""
        while self.admission.inflight > keep:
            self.admission.leave(1000)


@pytest.fixture
def overload() -> Overload:
    return Overload()


async def test_a_request_is_refused_with_a_problem_that_says_when_to_come_back(overload: Overload) -> None:
    data = overload.shed(request())
    assert data is not None
    answer = Answer(data)
    assert (answer.status, answer.keeps_open) == (503, True)
    assert answer.headers[b"content-type"] == b"application/problem+json"
    assert answer.headers[b"retry-after"] == b"1"
    problem = json.loads(answer.body)
    assert problem["type"] == "urn:ctr-serving:problem:overloaded"
    assert problem["request_id"].encode() == answer.headers[b"x-request-id"]
    assert len(overload.refused) == 1


@pytest.mark.parametrize(
    ("sent", "used"), [(b"abc-1", True), (b"  abc-2 ", True), (b"a b", False), (b"x" * 200, False)]
)
async def test_the_callers_id_is_sent_back_if_it_can_be(overload: Overload, sent: bytes, used: bool) -> None:
    data = overload.shed(request(b"X-Request-ID:" + sent, b"content-length: %d" % len(BODY)))
    assert data is not None
    answer = Answer(data)
    assert (answer.headers[b"x-request-id"] == sent.strip()) is used
    assert json.loads(answer.body)["request_id"].encode() == answer.headers[b"x-request-id"]


async def test_a_client_that_says_what_http_means_anyway_is_refused_like_others(overload: Overload) -> None:
    length = b"Content-Length: %d" % len(BODY)
    data = overload.shed(request(b"Connection: Keep-Alive", length, b"X-Request-ID: abc"))
    assert data is not None
    assert Answer(data).headers[b"x-request-id"] == b"abc"
    assert overload.shed(request(b"Connection: keep-alive, close", length)) is None
    assert overload.shed(request(b"Connection: keep-alive", b"Connection: close", length)) is None


@pytest.mark.parametrize(
    "data",
    [
        request(first=b"GET /rank HTTP/1.1"),
        request(first=b"POST /rank HTTP/1.0"),
        request(first=b"POST /models HTTP/1.1"),
        request(first=b"POST /ranks HTTP/1.1"),
        request()[:-1],
        request() + b"P",
        request() + request(),
        request()[:40],
        b"",
        request(b"Content-Length: 5", b"Content-Length: %d" % len(BODY)),
        request(b"Content-Length: +%d" % len(BODY)),
        request(b"Content-Length: 0000000000000%d" % len(BODY)),
        request(b"Content-Length: %d, 5" % len(BODY)),
        request(b"Content-Length:\xb2"),
        request(b"X: y"),
        *(
            request(header, b"Content-Length: %d" % len(BODY))
            for header in (
                b"Transfer-Encoding: chunked",
                b"Expect: 100-continue",
                b"Upgrade: h2c",
                b"Connection: close",
                b"Proxy-Connection: close",
                b"Origin: https://shop.example",
                b" folded: line",
                b"\tfolded: line",
                b"X : blank",
                b"Content-Length : 5",
                b"no colon",
                b": no name",
                b"X: a\0b",
                b"X: a\nY: b",
                b"X: a\rb",
                b"Connection: close\r\nConnection: keep-alive",
            )
        ),
    ],
)
async def test_what_is_not_one_whole_plain_request_is_left_to_the_server(overload: Overload, data: bytes) -> None:
    assert overload.shed(data) is None
    assert overload.refused == []


@pytest.mark.parametrize(
    "line", [b"X-Request-ID: a", b"X-Request-ID:" + b" " * 1000, b"X-Y: " + b" " * 1000, b"X: y:z"]
)
async def test_however_many_headers_there_are_they_are_looked_at_once(overload: Overload, line: bytes) -> None:
    data = request(*[line] * 30, b"Content-Length: %d" % len(BODY), b"Expect: 100-continue")
    began = time.perf_counter()
    assert overload.shed(data) is None
    assert time.perf_counter() - began < 1.0, "some tenths of a millisecond; 20 seconds did not do for 16 such lines"


async def test_nothing_is_refused_where_nothing_waits(overload: Overload) -> None:
    overload.end()
    assert overload.shed(request()) is None
    fresh = Admission(1000, 0.005)
    assert LoadShedder(fresh, overload.refused.append)(request()) is None


async def test_requests_that_were_read_and_have_not_begun_count(overload: Overload) -> None:
    overload.end()
    shed = [overload.shed(request()) is not None for _ in range(10)]
    assert shed == [False] * AT_ONCE + [True] * (10 - AT_ONCE)
    await asyncio.sleep(0)
    assert overload.shed(request()) is None, "they have begun, and count themselves"
