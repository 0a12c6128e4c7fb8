"""The edge of the HTTP service, pure ASGI: request ids, API keys, and bounds on the size and the time of a body.

`Edge` wraps the whole application; its pieces are plain functions for a route that reads raw ASGI itself. Headers are
passed as `dict(scope["headers"])`: lower-case bytes to bytes.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import types
from collections.abc import Awaitable, Collection, Generator, Mapping, Sequence
from itertools import count
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import internal_problem, problem_response
from app.errors import BodyTooLarge, BodyTooSlow, InvalidRequest, RequestError, Unauthorized

Headers = Mapping[bytes, bytes]

OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/health", "/health/live", "/health/ready", "/metrics"})
"""Served without a key: they hold nothing of users, and probes and scrapers carry no keys."""

log = structlog.get_logger(__name__)

_request_id = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_timeout_ms = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_process = os.urandom(8).hex()
_numbers = count(1)


def request_id_of(headers: Headers) -> str:
    """X-Request-ID as sent, or, where it is absent or unfit to be logged and sent back, a new one."""
    sent = headers.get(b"x-request-id")
    if sent is not None and _request_id.fullmatch(sent):
        return sent.decode()
    return f"{_process}-{next(_numbers):x}"


def authorised(headers: Headers, keys: Sequence[bytes]) -> bool:
    """Whether X-API-Key is one of `keys`. No keys: everybody is. Takes as long for a near miss as for any other."""
    if not keys:
        return True
    sent = headers.get(b"x-api-key", b"")
    found = False
    for key in keys:
        found |= hmac.compare_digest(sent, key)
    return found


def timeout_s_of(headers: Headers, longest_s: float) -> float:
    """Seconds the client waits for an answer: X-Request-Timeout-Ms, but never more than `longest_s`.

    Raises:
        InvalidRequest: the header is not a positive number of milliseconds.
    """
    sent = headers.get(b"x-request-timeout-ms")
    if sent is None:
        return longest_s
    seconds = float(sent) / 1000 if _timeout_ms.fullmatch(sent) else 0.0
    if seconds <= 0:
        message = "expected a positive number of milliseconds"
        raise InvalidRequest(f"X-Request-Timeout-Ms: {message}", errors=[("X-Request-Timeout-Ms", message)])
    return min(seconds, longest_s)


async def read_body(receive: Receive) -> bytes:
    """The whole body. Bounds are those of `receive`: give it a `BoundedBody`, as `Edge` does for all inside it.

    Raises ClientDisconnect: nobody is left to answer.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return bytes(message.get("body", b""))
    body = bytearray()
    while message["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()
    raise ClientDisconnect


class BoundedBody:
    """An ASGI `receive` that bounds a body; past the end of the body it does not interfere.

    Raises:
        BodyTooLarge: by Content-Length before anything is read, or while reading: one network read is held at most.
        BodyTooSlow: it is not complete `timeout_s` seconds after it was first waited for.
    """

    def __init__(self, receive: Receive, headers: Headers, limit: int, timeout_s: float) -> None:
        self.refusal: BodyTooLarge | BodyTooSlow | None = None
        """What was raised: frameworks turn errors of `receive` into their own."""
        self._receive = receive
        self._announced = headers.get(b"content-length", b"")
        self._limit = limit
        self._timeout_s = timeout_s
        self._asked = False
        self._due: float | None = None
        self._size = 0
        self._done = False

    async def __call__(self) -> Message:
        if self._done:
            return await self._receive()
        if not self._asked:
            self._asked = True
            if self._announced.isdigit() and (len(self._announced) > 18 or int(self._announced) > self._limit):
                raise self._too_large()
        # Most bodies are here as soon as their headers; a timer, which costs more than all else, is for the others.
        steps = self._receive().__await__()
        try:
            wanted = next(steps)
        except StopIteration as come:
            message: Message = come.value
        else:
            message = await self._in_time(_rest(steps, wanted))
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise self._too_large()
        self._done = not message.get("more_body")
        return message

    async def _in_time(self, message: Awaitable[Message]) -> Message:
        if self._due is None:
            self._due = asyncio.get_running_loop().time() + self._timeout_s
        try:
            async with asyncio.timeout_at(self._due):
                return await message
        except TimeoutError:
            self.refusal = BodyTooSlow(f"it was not complete after {self._timeout_s:g} s")
            raise self.refusal from None

    def _too_large(self) -> BodyTooLarge:
        self.refusal = BodyTooLarge(f"at most {self._limit} bytes are read")
        return self.refusal


async def _nothing() -> None:
    """What is awaited where a message is not sent."""


@types.coroutine
def _rest(steps: Generator[Any, None, Message], wanted: Any) -> Generator[Any, None, Message]:
    """Goes on with an awaitable that has made its first step, and wants `wanted` before the next."""
    try:
        while True:
            try:
                yield wanted
            except BaseException as error:  # cancelled, most likely: whoever is waited for has to know
                wanted = steps.throw(error)
            else:
                wanted = next(steps)
    except StopIteration as done:
        message: Message = done.value
        return message


class Edge:
    """Wraps the application: nothing gets past it without a request id, and no exception leaves it unanswered.

    The id is in `scope["state"]["request_id"]` for those inside, and on every response as X-Request-ID.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
        api_keys: Sequence[bytes] = (),
        open_paths: Collection[str] = OPEN_PATHS,
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._api_keys = tuple(api_keys)
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: Headers = dict(scope["headers"])
        request_id = request_id_of(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False
        body = BoundedBody(receive, headers, self._max_body_bytes, self._body_timeout_s)

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal started
            if not started:
                if body.refusal is not None:
                    return _nothing()  # what a framework made of the refusal, which is answered below
                if message["type"] == "http.response.start":
                    started = True
                    message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            return send(message)

        try:
            if scope["path"] not in self._open_paths and not authorised(headers, self._api_keys):
                raise Unauthorized("send one of the service's keys in the X-API-Key header")
            await self._app(scope, body, send_with_id)
            if body.refusal is None or started:
                return
            raise body.refusal
        except ClientDisconnect:
            return
        except Exception as error:
            if started and scope["state"].get("answered"):
                return
            if started:
                raise  # a broken answer must look broken: the server closes the connection
            refusal = error if isinstance(error, RequestError) else body.refusal
            if refusal is None:
                log.exception("unexpected_error", request_id=request_id, route=scope["path"][:200])
                response = internal_problem(request_id)
            else:
                response = problem_response(refusal, request_id)
                if isinstance(refusal, BodyTooSlow):
                    response.headers["connection"] = "close"  # the rest of the body may never come
        body.refusal = None
        await response(scope, receive, send_with_id)
