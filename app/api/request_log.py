"""`RequestLog`: a line of the log for each request, where CTR_LOG_REQUESTS asks for it."""

from __future__ import annotations

import time
from collections.abc import Awaitable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger(__name__)


class RequestLog:
    """Wraps `Edge`, and logs what was asked and answered. Queries, bodies and keys are in no line.

    Requests that an overloaded process refuses unparsed, and what is no request, do not come this far.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status: int | None = None  # it stays so if the client leaves before the answer

        def send_and_note(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"][:200],
                status=status,
                ms=round((time.perf_counter() - began) * 1000, 3),
                caller=scope.get("state", {}).get("caller"),
            )
