"""`Edge`: the outermost layer of the HTTP service, in pure ASGI.

It gives every request an id, checks API keys, bounds bodies, answers every error, and takes what is left of a body that
nobody read, so that its sender can read the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.bounded_body import BoundedBody
from app.api.headers import Headers, request_id_of
from app.api.problems import internal_problem, problem_response
from app.errors import RequestError, Unauthorized
from app.header_keys import KnownKeys
from app.observability.request_context import REQUEST

OPEN_PATHS = frozenset(
    {"/", "/docs", "/redoc", "/openapi.json", "/health", "/health/live", "/health/ready", "/metrics"}
)
"""Paths served without a key: they hold nothing of users, and probes and scrapers carry no keys."""

log = structlog.get_logger(__name__)


class Edge:
    """Wraps the application: every request has an id, and every exception is answered.

    The id is in `scope["state"]["request_id"]` for the application, in the lines that are logged meanwhile, and on
    every response as X-Request-ID. The name of the key that was sent is in `scope["state"]["caller"]`, where one is
    asked for.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
        api_keys: KnownKeys | None = None,
        open_paths: Collection[str] = OPEN_PATHS,
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._api_keys = api_keys or KnownKeys()
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: Headers = dict(scope["headers"])
        request_id = request_id_of(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        REQUEST.set((request_id, headers))
        started = False
        body = BoundedBody(receive, headers, self._max_body_bytes, self._body_timeout_s)

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal started
            if not started:
                if body.refusal is not None:
                    return _discard()  # a framework's answer to the refusal, which is answered below
                if message["type"] == "http.response.start":
                    started = True
                    added = [(b"x-request-id", request_id.encode())]
                    if body.unread and body.ends_connection:
                        added.append((b"connection", b"close"))
                    message["headers"] = [*message.get("headers", ()), *added]
            elif body.unread and not message.get("more_body"):
                return _send_and_drain(message, send, body)
            return send(message)

        try:
            if not self._api_keys or scope["path"] in self._open_paths or scope["method"] == "OPTIONS":
                pass  # what a route takes is no secret, and browsers ask without a key
            elif caller := self._api_keys.name_of(headers.get(b"x-api-key", b"")):
                scope["state"]["caller"] = caller
            else:
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
                raise  # an answer that breaks off must look broken: the server closes the connection
            refusal = error if isinstance(error, RequestError) else body.refusal
            if refusal is None:
                log.exception("unexpected_error", route=scope["path"][:200], caller=scope["state"].get("caller"))
                response = internal_problem(request_id)
            else:
                response = problem_response(refusal, request_id)
        body.refusal = None
        await response(scope, receive, send_with_id)


async def _send_and_drain(message: Message, send: Send, body: BoundedBody) -> None:
    """Send the last of an answer, and end the answer when the rest of the request's body has been taken."""
    await send({**message, "more_body": True})
    await body.drain()
    await send({"type": "http.response.body", "body": b""})


async def _discard() -> None:
    """Send nothing: this is awaited in place of `send(message)`."""
