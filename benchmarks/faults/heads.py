"""Heads that do not end: header lines and URLs, sent as fast as they are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.faults.attack import Attack
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.comparison import compare
from benchmarks.faults.raw_http import exchange
from benchmarks.faults.row import Check, Row

LIMIT_BYTES, LIMIT_LINES = 32 << 10, 100
SENT_MB = 16
ATTACKERS = 4


def _endless_heads(bed: FaultBed) -> Sequence[Check]:
    service = bed.usual()
    checks = []
    for what, start, piece in (
        ("endless header lines", b"GET /health HTTP/1.1\r\nHost: a\r\n", b"x-filler: " + b"a" * 8000 + b"\r\n"),
        ("one endless header", b"GET /health HTTP/1.1\r\nHost: a\r\nx-filler: ", b"a" * 8000),
        ("an endless URL", b"GET /", b"a" * 8000),
        ("an endless method", b"", b"G" * 8000),
    ):
        got = exchange(service, _endless(start, piece), timeout_s=20)
        refused = got.status in ((400, 431) if what == "an endless method" else (431,))
        seen = f"{what}: {got.status or 'no answer'}{', closed' if got.closed else ', open'} after {got.sent >> 10} KB"
        checks.append(Check(seen, refused and got.closed and got.sent < SENT_MB << 20))
    for what, head, expected in (
        ("100 lines", _lines(LIMIT_LINES - 1), 200),
        ("101 lines", _lines(LIMIT_LINES + 1), 431),
        ("31 KB", b"x-filler: " + b"a" * (31 << 10) + b"\r\n", 200),
        ("33 KB", b"x-filler: " + b"a" * (33 << 10) + b"\r\n", 431),
    ):
        got = exchange(service, [b"GET /health/live HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n"])
        checks.append(Check(f"a head of {what}: {got.status}", got.status == expected))
    for what in ("lines",) if bed.smoke else ("lines", "url"):
        with Attack("endless_head", service.url, connections=ATTACKERS, what=what) as attack:
            result = compare(bed.load(service), attack.go, attack.rest, rounds=bed.rounds, seconds=bed.round_s)
        checks += result.checks(1.2, f"{ATTACKERS} clients of endless {what}")
    return checks


def _endless(start: bytes, piece: bytes) -> Iterator[bytes]:
    yield start
    for _ in range((SENT_MB << 20) // len(piece) + 1):
        yield piece


def _lines(number: int) -> bytes:
    """Return so many header lines, of which the sender adds the `Host`."""
    return b"".join(b"x-%d: 1\r\n" % line for line in range(number))


ROWS = (
    Row(
        "heads",
        "one connection sends an endless header or URL",
        "431 and closed past 32 KB or 100 lines, others' p99 at most 1.2x",
        _endless_heads,
        "found",
        smoke=True,
    ),
)
