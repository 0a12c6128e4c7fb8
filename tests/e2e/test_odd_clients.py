"""Tests of clients that send no request, half of one, or far too much: over sockets, to a service that others use."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests import loopback
from tests.e2e.conftest import Running, Shared, workers_of
from tests.processes import resident_mb
from tests.waiting import until

GOOD = b'{"user_id": "1", "item_ids": ["1", "2"]}'
CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD)
LENGTH, CHUNKED = b"Content-Length: %d\r\n" % len(GOOD), b"Transfer-Encoding: chunked\r\n"
MAX_GROWTH_MB = 20


def connect(service: Running) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def rank(headers: bytes, body: bytes = b"", line: bytes = b"POST /rank HTTP/1.1") -> bytes:
    return line + b"\r\nHost: service\r\n" + headers + b"\r\n" + body


def answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read an answer and the end of the connection: status, headers and body."""
    received = b""
    while piece := client.recv(65_536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


MALFORMED = {
    "method": rank(LENGTH, GOOD, b"post /rank HTTP/1.1"),
    "version": rank(b"", line=b"GET /health HTTP/3.0"),
    "no version": b"GET /health\r\n\r\n",
    "length of no number": rank(b"Content-Length: ten\r\n", GOOD),
    "negative length": rank(b"Content-Length: -1\r\n", GOOD),
    "two lengths": rank(LENGTH + b"Content-Length: 1\r\n", GOOD),
    "length and chunks": rank(LENGTH + CHUNKED, CHUNK),
    "chunks and length": rank(CHUNKED + LENGTH, CHUNK),
    "chunks not last": rank(b"Transfer-Encoding: chunked, identity\r\n", CHUNK),
    "chunk size": rank(CHUNKED, b"zz\r\n" + GOOD),
    "chunk longer than its size": rank(CHUNKED, b"1\r\n" + GOOD + b"\r\n0\r\n\r\n"),
    "space before the colon": rank(b"Content-Length : 2\r\n", b"{}"),
    "two hosts": rank(b"Host: a\r\nHost: b\r\n" + LENGTH, GOOD),
    "NUL in a value": rank(b"x: \0\r\n" + LENGTH, GOOD),
    "NUL in a name": rank(b"x\0: 1\r\n" + LENGTH, GOOD),
    "NUL in the URL": rank(b"", line=b"GET /\0 HTTP/1.1"),
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\0" * 200,
}


@pytest.mark.parametrize("form", MALFORMED)
def test_what_is_malformed_is_a_problem_and_ends_the_connection(form: str, shared: Shared) -> None:
    with closing(connect(shared.service)) as client:
        client.sendall(MALFORMED[form])
        status, headers, body = answer(client)
    assert status == 400
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["type"] == "urn:ctr-serving:problem:not-http"


def test_a_hundred_thousand_headers_are_refused_and_counted(shared: Shared) -> None:
    with closing(connect(shared.service)) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n" + b"x: 1\r\n" * 100_000 + b"\r\n")
        status, headers, body = answer(client)
    assert (status, headers["content-type"]) == (431, "application/problem+json")
    assert b"100 lines" in body
    metrics = loopback.get(f"{shared.service.url}/metrics").text
    assert 'ctr_connections_refused_total{reason="head_too_large"} 0' not in metrics


def test_requests_behind_each_other_are_answered_in_order_although_the_client_ends_its_side(shared: Shared) -> None:
    bodies = [b'{"user_id": "1", "item_ids": ["%d"]}' % item for item in range(8)]
    with closing(connect(shared.service)) as client:
        client.sendall(b"".join(rank(b"Content-Length: %d\r\n" % len(body), body) for body in bodies))
        client.shutdown(socket.SHUT_WR)
        received = b""
        while piece := client.recv(65_536):
            received += piece
    answers = received.split(b"HTTP/1.1 200 OK\r\n")[1:]
    items = [json.loads(text.partition(b"\r\n\r\n")[2])["items"][0]["item_id"] for text in answers]
    assert items == [str(item) for item in range(8)]


def test_an_endless_body_is_refused_without_being_held(shared: Shared) -> None:
    piece = b"%x\r\n%b\r\n" % (1 << 18, b" " * (1 << 18))
    (worker,) = workers_of(shared.service)
    before_mb = resident_mb(worker)
    most_mb, sent = before_mb, 0
    with closing(connect(shared.service)) as client:
        client.sendall(rank(CHUNKED))
        try:
            while sent < 1 << 30:
                client.sendall(piece)
                sent += len(piece)
                if sent % (16 * len(piece)) == 0:
                    most_mb = max(most_mb, resident_mb(worker))
        except OSError:
            pass
    assert sent < 1 << 28, "64 MB are taken, and what is in buffers"
    assert most_mb - before_mb < MAX_GROWTH_MB


def test_clients_that_leave_in_mid_request_leave_nothing_at_work(shared: Shared) -> None:
    body = json.dumps({"user_id": "1", "item_ids": [str(item) for item in range(500)]}).encode()
    request = rank(b"Content-Length: %d\r\n" % len(body), body)
    for number in range(300):
        with closing(connect(shared.service)) as client:
            client.sendall(request[: len(request) // 2] if number % 3 == 0 else request)
            if number % 2:  # a reset in place of an end
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def at_rest() -> bool:
        metrics = loopback.get(f"{shared.service.url}/metrics").text.splitlines()
        return "ctr_inflight_requests 0.0" in metrics and "ctr_connections 1.0" in metrics  # the scraper's own

    until(at_rest)
