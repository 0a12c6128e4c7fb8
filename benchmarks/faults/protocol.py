"""Requests that are none: bodies without end, lengths that lie, smuggling forms, pipelining, NUL, 100,000 headers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.faults.bed import FaultBed
from benchmarks.faults.raw_http import Exchange, exchange
from benchmarks.faults.row import Check, Row
from benchmarks.faults.service import Service

GROWTH_MB = 20.0
GIGABYTE = 1 << 30
TAKEN_MB = 96
"""At most: of a refused body 64 MB are taken, so that clients read the refusal; the rest is in buffers."""
PIECE = b" " * (1 << 18)
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Case:
    """Bytes, and the answers that they may get; 0 stands for none."""

    what: str
    pieces: Sequence[bytes]
    expected: Sequence[int]
    answers: int = 1


class PeakMemory:
    """The most resident memory of a service while the block lasts, over what it was before."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._over = threading.Event()
        self.before_mb = self.peak_mb = 0.0

    @property
    def grown_mb(self) -> float:
        return self.peak_mb - self.before_mb

    def __enter__(self) -> PeakMemory:
        self.before_mb = self.peak_mb = self._service.process.resident_mb()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.peak_mb = max(self.peak_mb, self._service.process.resident_mb())


def cases(service: Service) -> list[Case]:
    """Return the forms whose answers are named."""
    key = f"X-API-Key: {service.secrets.key}\r\n".encode()
    good = b'{"user_id": "1", "item_ids": ["1", "2"]}'

    def rank(headers: bytes, body: bytes = b"", line: bytes = b"POST /rank HTTP/1.1") -> bytes:
        return line + b"\r\nHost: a\r\n" + key + headers + b"\r\n" + body

    length = b"Content-Length: %d\r\n" % len(good)
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(good), good)
    chunked = b"Transfer-Encoding: chunked\r\n"
    whole = rank(length, good)
    return [
        Case("a whole request", [whole], [200]),
        Case("the same in chunks", [rank(chunked, chunk)], [200]),
        Case("a length that is too short", [rank(b"Content-Length: 10\r\n", good)], [400]),
        Case("a length of no number", [rank(b"Content-Length: ten\r\n", good)], [400]),
        Case("a negative length", [rank(b"Content-Length: -1\r\n", good)], [400]),
        Case("a length past 2^64", [rank(b"Content-Length: 99999999999999999999\r\n", good)], [400, 413]),
        Case("two lengths", [rank(length + b"Content-Length: 1\r\n", good)], [400]),
        Case("two hosts", [rank(b"Host: b\r\n" + length, good)], [400]),
        Case("a length and chunks", [rank(length + chunked, chunk)], [400]),
        Case("chunks that are not the last coding", [rank(b"Transfer-Encoding: chunked, identity\r\n", chunk)], [400]),
        Case("an unknown transfer coding", [rank(b"Transfer-Encoding: xchunked\r\n", chunk)], [400, 411, 501]),
        Case("a chunk size of no number", [rank(chunked, b"zz\r\n" + good)], [400]),
        Case("a chunk size past 2^64", [rank(chunked, b"fffffffffffffffff\r\n" + good)], [400, 413]),
        Case("a chunk longer than its size", [rank(chunked, b"1\r\n" + good + b"\r\n0\r\n\r\n")], [400]),
        Case("a space before the colon", [rank(b"Content-Length : 2\r\n", b"{}")], [400]),
        Case("a folded header", [rank(b"x-a: 1\r\n folded\r\n" + length, good)], [400, 200]),
        Case("bare line feeds", [whole.replace(b"\r\n", b"\n")], [400, 200]),
        Case("NUL in a header", [rank(b"x-a: \0\r\n" + length, good)], [400]),
        Case("NUL in the URL", [rank(b"", line=b"GET /\0 HTTP/1.1")], [400]),
        Case("NUL in a name", [rank(b"x-\0: 1\r\n" + length, good)], [400]),
        Case("NUL in the body", [rank(b"Content-Length: 3\r\n", b"{\0}")], [400]),
        Case("no version", [b"GET /health\r\n\r\n"], [400, 0]),
        Case("HTTP/2.0 in the line", [rank(b"", line=b"GET /health HTTP/2.0")], [400, 505]),
        Case("a TLS greeting", [bytes.fromhex("16030100c8010000c40303") + b"\0" * 200], [400]),
        Case("HTTP/2's preface", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], [400, 505]),
        Case("eight in a pipeline", [whole * 8], [200] * 8, answers=8),
        Case("a refused one in a pipeline", [whole + rank(b"Content-Length: 2\r\n", b"{]") + whole], [200], answers=3),
        Case(
            "100,000 headers",
            [b"GET /health HTTP/1.1\r\nHost: a\r\n", *([b"x-a: 1\r\n" * 1000] * 100), b"\r\n"],
            [431],
        ),
    ]


def _malformed(bed: FaultBed) -> Sequence[Check]:
    service = bed.usual()
    key = f"X-API-Key: {service.secrets.key}\r\n".encode()
    start = b"POST /rank HTTP/1.1\r\nHost: a\r\n" + key
    size = bed.count(GIGABYTE, 32 << 20)
    wrong: list[str] = []
    problems = 0
    with PeakMemory(service) as memory:
        big = exchange(
            service, _body(start + b"Content-Length: %d\r\n\r\n" % size, PIECE, size), answers=2, timeout_s=60
        )
        chunk = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
        chunked = exchange(
            service, _body(start + b"Transfer-Encoding: chunked\r\n\r\n", chunk, size), answers=2, timeout_s=60
        )
        no_key = exchange(
            service,
            _body(b"POST /rank HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size, PIECE, size),
            answers=2,
            timeout_s=60,
        )
        for case in cases(service):
            got = exchange(service, case.pieces, answers=case.answers, timeout_s=8)
            if not _as_named(case, got):
                wrong.append(f"{case.what}: {got.statuses or 'no answer'}, not {list(case.expected)}")
            problems += _not_problems(got)
        time.sleep(0.1)
    named = len(cases(service))
    return [
        _body_check("a body of 1 GB" if size == GIGABYTE else f"a body of {size >> 20} MB", big, 413),
        _body_check("the same in chunks", chunked, 413),
        _body_check("the same without a key", no_key, 401),
        Check(f"{named - len(wrong)} of {named} forms answered as named", True),
        *(Check(text, ok=False) for text in wrong),
        Check(f"{problems} refusals are no application/problem+json", problems == 0),
        Check(
            f"memory {memory.before_mb:.0f} MB, {memory.grown_mb:.1f} more at most (of {GROWTH_MB:.0f})",
            memory.grown_mb <= GROWTH_MB,
        ),
    ]


def _as_named(case: Case, got: Exchange) -> bool:
    if case.answers > 1:
        return got.statuses[: len(case.expected)] == list(case.expected) and not any(s >= 500 for s in got.statuses)
    return got.status in case.expected


def _not_problems(got: Exchange) -> int:
    return sum(status >= 400 and kind != PROBLEM for status, kind in zip(got.statuses, got.types, strict=True))


def _body_check(what: str, got: Exchange, expected: int) -> Check:
    return Check(
        f"{what}: {got.status or 'no answer'}, {'closed' if got.closed else 'open'} after {got.sent >> 20} MB",
        got.status == expected and got.closed and got.sent <= TAKEN_MB << 20,
    )


def _body(head: bytes, piece: bytes, size: int) -> Iterator[bytes]:
    yield head
    for _ in range(size // len(piece)):
        yield piece


ROWS = (
    Row(
        "protocol",
        "1 GB body, chunked, lying length, smuggling forms, pipelining, NUL, 100,000 headers",
        "4xx as named; memory grows at most 20 MB",
        _malformed,
        smoke=True,
    ),
)
