"""Requests of a seeded generator over all routes, and schemathesis where it is installed."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import httptools
import msgspec

from benchmarks.faults.bed import FaultBed
from benchmarks.faults.row import Check, Row
from benchmarks.faults.service import Service

CASES, SMOKE_CASES = 20_000, 400
SEED = 14
MAX_ANSWER, MAX_ERROR = 64 << 10, 4 << 10
EXPLAINED, EXPLAINED_ITEM = 20, 20 << 10
"""Items of an answer that are explained at most, where a request asks for it, and what one takes (docs/http.md)."""
READ_S = 15.0
OPEN_DOCUMENTS = ("/metrics", "/openapi.json", "/docs", "/")
"""Routes whose answers are no answers to a request's content, and may be larger than 64 KB."""
ATOMS = (
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**63, 2**64, -(2**63)),
    *("", "0", "1", "999999", " 1", "1\n", "NaN", "Infinity"),
    *("\0", "\ud7ff", "é" * 40, "𝔘", "a" * 256, "a" * 257, "a" * 5000),
    *("../../etc/passwd", "{{7*7}}", "'; DROP TABLE users; --"),
)
RAW = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b'"\\ud800"',
    b"\xff\xfe",
    b"[" * 2000,
    b"{" * 2000,
    b"0" * 400,
    b"\xef\xbb\xbf{}",
    b"'a'",
    b"tru",
)


class RequestCorpus:
    """Draws requests: usual ones in which one to three things are not as they should be."""

    def __init__(self, service: Service, routes: Sequence[tuple[str, str]], seed: int = SEED) -> None:
        self._dice = random.Random(seed)
        self._key = service.secrets.key
        self._routes = list(routes)

    def requests(self, count: int) -> Iterator[tuple[str, bytes]]:
        """Yield method and path, and the bytes of a request."""
        for _ in range(count):
            method, path = self._dice.choice([("POST", "/rank")] * len(self._routes) + self._routes)
            method = self._dice.choice([method] * 12 + ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD", "TRACE"])
            target = self._target(path)
            body = self._body() if method not in ("GET", "HEAD") or self._dice.random() < 0.1 else b""
            head = f"{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n" + "".join(
                f"{name}: {value}\r\n" for name, value in self._headers()
            )
            yield f"{method} {path}", head.encode("latin-1", "replace") + b"\r\n" + body

    def _target(self, path: str) -> str:
        dice = self._dice
        while "{" in path:
            start, end = path.index("{"), path.index("}")
            path = path[:start] + quote(str(dice.choice(ATOMS))[:500]) + path[end + 1 :]
        if dice.random() < 0.1:
            path += dice.choice(["/", "//", "/..", "%00", "?a=b", "?" + "x" * 2000, "?model=%ff", "#a", "/%2e%2e/"])
        return path

    def _headers(self) -> list[tuple[str, str]]:
        dice = self._dice
        headers = [("X-API-Key", self._key if dice.random() < 0.95 else "wrong")]
        odd = ["", "0", "-1", "nan", "1e9", "a" * 300, "\xff", "1, 2", "5000", "0.001"]
        for name in (
            "X-Request-Timeout-Ms",
            "X-Request-ID",
            "traceparent",
            "Content-Type",
            "Accept",
            "Accept-Encoding",
        ):
            headers += [(name, dice.choice(odd))] * (dice.random() < 0.05)
        if dice.random() < 0.02:
            headers.append(("Content-Encoding", dice.choice(["gzip", "br", "identity", "gzip, gzip"])))
        return headers

    def _body(self) -> bytes:
        dice = self._dice
        body = {
            "user_id": str(dice.randrange(1000)),
            "item_ids": [str(dice.randrange(5000)) for _ in range(dice.randrange(1, 40))],
        }
        for _ in range(dice.randrange(4)):
            name = dice.choice(
                [
                    "user_id",
                    "item_ids",
                    "context",
                    "user_features",
                    "item_features",
                    "top_k",
                    "model",
                    "explain",
                    "request_id",
                    "odd",
                ]
            )
            body[name] = self._value(name)
        encoded = msgspec.json.encode(body)
        if dice.random() < 0.1:
            at = dice.randrange(len(encoded))
            encoded = encoded[:at] + dice.choice(RAW) + encoded[at + dice.randrange(3) :]
        elif dice.random() < 0.03:
            encoded = encoded[: dice.randrange(len(encoded))]
        return encoded

    def _value(self, name: str, depth: int = 0) -> object:
        dice = self._dice
        if name in ("context", "user_features") and depth == 0 and dice.random() < 0.8:
            return {f"user_f{dice.randrange(14)}": self._value("", 1) for _ in range(dice.randrange(5))}
        if name == "item_features" and depth == 0 and dice.random() < 0.8:
            return {str(dice.randrange(5000)): {f"item_f{dice.randrange(22)}": self._value("", 1)} for _ in range(5)}
        if name in ("explain", "top_k") and dice.random() < 0.7:
            return dice.choice([True, False]) if name == "explain" else dice.randrange(-2, 60)
        draw = dice.random()
        if draw < 0.15 and depth < 4:
            return [self._value("", depth + 1) for _ in range(dice.randrange(6))]
        if draw < 0.3 and depth < 4:
            return {str(dice.choice(ATOMS))[:300]: self._value("", depth + 1) for _ in range(dice.randrange(6))}
        return dice.choice(ATOMS)


class _Answer:
    """The callbacks of the parser, for one answer after the other."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.complete, self.content = False, b""

    def on_body(self, body: bytes) -> None:
        self.content += body

    def on_message_complete(self) -> None:
        self.complete = True


def unexplained_size(body: bytes) -> int:
    """Return the size of an answer less what its explained items may take."""
    return len(body) - EXPLAINED_ITEM * min(body.count(b'"explanation":'), EXPLAINED)


def answer_to(service: Service, connection: socket.socket, request: bytes) -> tuple[int, int, bool]:
    """Return status and `unexplained_size` of the answer, and whether the connection goes on.

    Raises OSError if there is no answer.
    """
    connection.sendall(request)
    answer = _Answer()
    head = request.startswith(b"HEAD")
    received = b""
    while not answer.complete:
        data = connection.recv(1 << 16)
        if not data:
            raise ConnectionError("closed without an answer")
        received += data[:MAX_ERROR]
        if head and b"\r\n\r\n" in received:
            return int(received.split()[1]), 0, b"connection: close" not in received.lower()
        answer.parser.feed_data(data)
    service.secrets.look(received, "corpus")
    return answer.parser.get_status_code(), unexplained_size(answer.content), answer.parser.should_keep_alive()


def _corpus(bed: FaultBed) -> Sequence[Check]:
    service = bed.usual()
    document = service.get("/openapi.json").json()
    routes = [(method.upper(), path) for path, of in document["paths"].items() for method in of]
    count = bed.count(CASES, SMOKE_CASES)
    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    unanswered = largest = largest_error = 0
    connection: socket.socket | None = None
    began = time.monotonic()
    for number, (route, request) in enumerate(RequestCorpus(service, routes).requests(count)):
        try:
            connection = connection or socket.create_connection(("127.0.0.1", service.port), timeout=READ_S)
            status, size, goes_on = answer_to(service, connection, request)
        except (OSError, httptools.HttpParserError) as error:
            unanswered += 1
            wrong.append(f"case {number}, {route}: {error!r}")
            connection = None
            continue
        statuses[status] += 1
        if status >= 400:
            largest_error = max(largest_error, size)
        elif route.split()[1] not in OPEN_DOCUMENTS:
            largest = max(largest, size)
        if status >= 500 and status != 504:
            wrong.append(f"case {number}, {route}: {status}")
        if not goes_on:
            connection.close()
            connection = None
        if number % 5000 == 4999:
            bed.notify(f"{number + 1:,} of {count:,} cases")
    if connection is not None:
        connection.close()
    server_errors = sum(times for status, times in statuses.items() if status >= 500)
    late = statuses[504]
    return [
        Check(
            f"{sum(statuses.values()):,} cases of seed {SEED} over {len(routes)} routes in "
            f"{time.monotonic() - began:.0f} s: "
            + ", ".join(f"{times:,} x {status}" for status, times in sorted(statuses.items())),
            not unanswered,
        ),
        # A client may ask for a deadline that nobody can keep: the corpus does, and 504 is what is documented.
        Check(f"{server_errors - late} of 5xx ({late} more asked for less time than there is)", server_errors == late),
        *(Check(text, ok=False) for text in wrong[:5]),
        Check(f"the largest answer {largest:,} bytes (of {MAX_ANSWER:,})", largest <= MAX_ANSWER),
        Check(f"the largest error {largest_error:,} bytes (of {MAX_ERROR:,})", largest_error <= MAX_ERROR),
    ]


ROWS = (
    Row(
        "corpus",
        "a seeded corpus, 20,000 cases over all routes",
        "0 of 5xx, no answer over 64 KB, explanations aside, error bodies at most 4 KB",
        _corpus,
        smoke=True,
    ),
)
