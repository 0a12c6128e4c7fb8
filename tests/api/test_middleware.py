"""`Edge` around a bare ASGI application: ids, keys, bounds, errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from app.api.bounded_body import read_body
from app.api.middleware import Edge
from app.api.problems import install_problem_handlers
from app.api.request_log import RequestLog
from app.errors import NotJson
from app.header_keys import UNNAMED, KnownKeys, hashed
from app.observability.request_context import add_request_ids
from tests.api.fakes import client
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.anyio

LIMIT = 1000
CHUNK = b"x" * 1000
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the size of the body and the request id."""
    body = await read_body(receive)
    content = f"{len(body)} {scope['state']['request_id']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": content})


def edge(app: Any = echo, **options: Any) -> Edge:
    return Edge(app, **{"max_body_bytes": LIMIT, "body_timeout_s": 5.0, **options})


async def send_messages(
    app: Edge, messages: Iterator[Message], sent: list[Message] | None = None, **scope: Any
) -> list[Message]:
    """Return everything that is sent in answer to these messages; after them the client is silent."""
    sent = [] if sent is None else sent

    async def receive() -> Message:
        message = next(messages, None)
        return message if message is not None else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/rank", "headers": [], **scope}, receive, send)
    return sent


def status(sent: list[Message]) -> int:
    """Return the status of a whole answer."""
    start, *bodies = sent
    assert start["type"] == "http.response.start"
    assert {message["type"] for message in bodies} == {"http.response.body"}
    assert [bool(message.get("more_body")) for message in bodies] == [True] * (len(bodies) - 1) + [False]
    return int(start["status"])


def closes(sent: list[Message]) -> bool:
    return (b"connection", b"close") in sent[0]["headers"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rest of a body is awaited for 0.05 s and not for 5."""
    monkeypatch.setattr("app.api.bounded_body.DRAIN_SILENCE_S", 0.05)


async def test_a_body_within_the_limit_arrives_whole() -> None:
    async with client(edge()) as http:
        assert (await http.post("/rank", content=b"x" * LIMIT)).text.startswith("1000 ")
        assert (await http.post("/rank")).text.startswith("0 ")


async def test_a_body_in_pieces_is_put_together() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"abc"

    async with client(edge()) as http:
        assert (await http.post("/rank", content=pieces())).text.startswith("30 ")


async def test_an_announced_body_that_is_too_large_is_refused_before_it_comes_and_then_taken() -> None:
    for length, count in ((b"1001", 2), (b"20971520", 1000), (b"9" * 5000, 3)):
        sent: list[Message] = []
        answered_before = []

        def pieces(
            count: int = count, sent: list[Message] = sent, seen: list[bool] = answered_before
        ) -> Iterator[Message]:
            for left in reversed(range(count)):
                seen.append(len(sent) == 2)
                yield {"type": "http.request", "body": CHUNK, "more_body": left > 0}

        await send_messages(edge(), pieces(), sent, headers=[(b"content-length", length)])
        assert status(sent) == 413
        assert b"at most 1000 bytes" in sent[1]["body"]
        assert answered_before == [True] * count, "all of it was read, after the answer was sent"
        assert closes(sent)


async def test_100_mb_that_were_not_announced_are_refused_and_taken_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.api.bounded_body.DRAIN_BYTES", 50_000)
    read = 0

    def endless() -> Iterator[Message]:
        nonlocal read
        for _ in range(100_000):
            read += 1
            yield {"type": "http.request", "body": CHUNK, "more_body": True}

    sent = await send_messages(edge(), endless(), headers=[(b"transfer-encoding", b"chunked")])
    assert status(sent) == 413
    assert closes(sent)
    assert read == 2 + 50


async def test_the_rest_of_a_body_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.bounded_body.DRAIN_S", 0.5)
    read = 0

    class Endless(Edge):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def slowly() -> Message:
                nonlocal read
                read += 1
                await asyncio.sleep(0.01)
                return {"type": "http.request", "body": b"x", "more_body": True}

            await super().__call__(scope, slowly, send)

    app = Endless(echo, max_body_bytes=LIMIT, body_timeout_s=5.0)
    assert status(await send_messages(app, iter([]), headers=[(b"content-length", b"1001")])) == 413
    assert 1 < read < 55


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("expect", [[], [(b"expect", b"100-continue")]])
async def test_a_client_that_does_not_send_its_refused_body_is_let_go(expect: list[tuple[bytes, bytes]]) -> None:
    for ending in ([], [{"type": "http.disconnect"}]):
        sent = await send_messages(edge(), iter(ending), headers=[(b"content-length", b"1001"), *expect])
        assert status(sent) == 413
        assert closes(sent)


async def test_a_small_body_of_a_refused_request_is_taken_and_the_connection_stays() -> None:
    read = []

    def body() -> Iterator[Message]:
        for piece, more in ((b"ab", True), (b"c", False)):
            read.append(piece)
            yield {"type": "http.request", "body": piece, "more_body": more}

    sent = await send_messages(edge(api_keys=KnownKeys(["key"])), body(), headers=[(b"content-length", b"3")])
    assert status(sent) == 401
    assert read == [b"ab", b"c"]
    assert not closes(sent)
    asked = [(b"content-length", b"3"), (b"expect", b"100-continue")]
    assert closes(await send_messages(edge(api_keys=KnownKeys(["key"])), body(), headers=asked)), (
        "it may send it or not"
    )


async def test_an_answer_that_left_the_body_unread_is_whole_too() -> None:
    async def ignores(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"do", "more_body": True})
        await send({"type": "http.response.body", "body": b"ne"})

    pieces = iter([{"type": "http.request", "body": CHUNK, "more_body": n < 4} for n in range(5)])
    sent = await send_messages(edge(ignores), pieces, headers=[(b"content-length", b"5000")])
    assert status(sent) == 200
    assert b"".join(message.get("body", b"") for message in sent[1:]) == b"done"
    assert next(pieces, None) is None


async def test_an_unfit_content_length_does_not_replace_counting() -> None:
    messages = iter([{"type": "http.request", "body": CHUNK * 2, "more_body": False}])
    assert status(await send_messages(edge(), messages, headers=[(b"content-length", b"-5")])) == 413


@pytest.mark.usefixtures("impatient")
async def test_a_body_that_trickles_in_is_refused_and_its_connection_closed() -> None:
    def trickle() -> Iterator[Message]:
        yield {"type": "http.request", "body": b"{", "more_body": True}

    sent = await asyncio.wait_for(send_messages(edge(body_timeout_s=0.05), trickle()), PATIENCE_S)
    assert status(sent) == 408
    assert closes(sent)


async def test_the_time_is_for_the_whole_body_not_for_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.bounded_body.DRAIN_S", 0.1)

    async def slowly() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.02)
            yield b"x"

    async with client(edge(body_timeout_s=0.1)) as http:
        response = await asyncio.wait_for(http.post("/rank", content=slowly()), PATIENCE_S)
    assert response.status_code == 408


async def test_waiting_for_the_client_to_leave_has_no_limit() -> None:
    left = asyncio.Event()

    async def watcher(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        left.set()
        waiting.cancel()

    await send_messages(
        edge(watcher, body_timeout_s=0.02), iter([{"type": "http.request", "body": b"", "more_body": False}])
    )
    assert left.is_set()


async def test_a_client_that_leaves_is_not_an_error() -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    with capture_logs() as logs:
        assert await send_messages(edge(), iter(messages)) == []
    assert logs == []


async def test_what_a_framework_makes_of_a_refused_body_is_not_sent() -> None:
    app = FastAPI()
    install_problem_handlers(app)

    @app.post("/rank")
    async def rank(request: dict[str, Any]) -> None:
        """FastAPI reads the body and turns every error of doing so into a 400."""

    async with client(edge(app)) as http:
        response = await http.post("/rank", content=CHUNK * 2)
    assert response.status_code == 413
    assert response.json()["type"].endswith(":body-too-large")


async def test_the_request_id_is_sent_back_on_every_answer() -> None:
    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        raise NotJson

    for app in (echo, refuses):
        async with client(edge(app)) as http:
            response = await http.post("/rank", headers={"X-Request-ID": "abc-1.2_3"})
        assert response.headers.get_list("X-Request-ID") == ["abc-1.2_3"]
        assert "abc-1.2_3" in response.text


async def test_keys() -> None:
    keys = KnownKeys(["first-key", "schlüssel", hashed("third-key", "shop")])
    app = edge(api_keys=keys)
    async with client(app) as http:
        for key in ("", "first-ke", "first-key2", "FIRST-KEY", hashed("third-key", "shop"), hashed("first-key")):
            response = await http.post("/rank", headers={"X-API-Key": key})
            assert response.status_code == 401
            assert response.json()["type"].endswith(":unauthorized")
        assert (await http.post("/rank")).status_code == 401
        assert (await http.get("/models")).status_code == 401
        for key in (b"first-key", "schlüssel".encode(), b"third-key"):
            assert (await http.post("/rank", headers={b"X-API-Key": key})).status_code == 200
    assert keys.requests == {UNNAMED: 2, "shop": 1}


@pytest.mark.parametrize(
    "path", ["/health", "/health/live", "/health/ready", "/metrics", "/", "/docs", "/redoc", "/openapi.json"]
)
async def test_paths_that_need_no_key(path: str) -> None:
    async with client(edge(api_keys=KnownKeys(["key"]))) as http:
        assert (await http.get(path)).status_code == 200
        assert (await http.get(path.rstrip("/") + "/x")).status_code == 401, "only these very paths"


async def test_metrics_can_be_closed() -> None:
    async with client(edge(api_keys=KnownKeys(["key"]), open_paths={"/health"})) as http:
        assert (await http.get("/metrics")).status_code == 401


async def test_an_unexpected_error_is_a_500_without_its_text_and_logged() -> None:
    async def bug(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("secret of ours")

    with capture_logs([add_request_ids]) as logs:
        async with client(edge(bug)) as http:
            response = await http.post("/rank", headers={"X-Request-ID": "abc", "traceparent": TRACEPARENT})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text
    (line,) = logs
    assert (line["event"], line["request_id"], line["trace_id"]) == ("unexpected_error", "abc", TRACEPARENT[3:35])


async def test_a_line_a_request_where_it_is_asked_for() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/bug":
            raise ValueError("a bug")
        await echo(scope, receive, send)

    with capture_logs([add_request_ids]) as logs:
        async with client(RequestLog(edge(app, api_keys=KnownKeys([hashed("key", "shop")])))) as http:
            headers = {"X-API-Key": "key", "X-Request-ID": "abc", "traceparent": TRACEPARENT}
            await http.post("/rank?user=4711", content=b"4711", headers=headers)
            await http.get("/models")
            await http.get("/bug", headers={"X-API-Key": "key"})
    asked, refused, unexpected, failed = logs
    assert asked.pop("ms") >= 0
    assert asked == {
        "event": "request",
        "log_level": "info",
        "method": "POST",
        "path": "/rank",
        "status": 200,
        "caller": "shop",
        "request_id": "abc",
        "trace_id": TRACEPARENT[3:35],
    }
    assert (refused["path"], refused["status"], refused["caller"]) == ("/models", 401, None)
    assert "trace_id" not in refused, "it sent none"
    assert (unexpected["event"], failed["event"], failed["status"]) == ("unexpected_error", "request", 500)
    assert unexpected["request_id"] == failed["request_id"] != refused["request_id"]


async def test_a_client_that_leaves_has_its_line_too() -> None:
    with capture_logs() as logs:
        app: Any = RequestLog(edge())
        await send_messages(app, iter([{"type": "http.disconnect"}]))
    assert [(line["event"], line["status"]) for line in logs] == [("request", None)]


async def test_an_answer_that_breaks_off_is_not_made_whole() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        await send_messages(edge(breaks), iter([]))


async def test_scopes_other_than_http_pass() -> None:
    seen = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await send_messages(edge(inner), iter([]), type="lifespan")
    assert seen == ["lifespan"]


async def test_the_next_request_is_served_after_a_refused_one() -> None:
    app = FastAPI()

    @app.post("/rank")
    async def rank(request: Request) -> int:
        return len(await request.body())

    async with httpx.AsyncClient(transport=httpx.ASGITransport(edge(app)), base_url="http://service") as http:
        assert (await http.post("/rank", content=CHUNK * 5)).status_code == 413
        assert (await http.post("/rank", content=b"12345")).json() == 5
