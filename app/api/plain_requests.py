"""The forms in which clients and proxies write one request, made one before anything looks at it."""

from __future__ import annotations

import re
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_slashes = re.compile("/{2,}")


def plain_path(path: str, root_path: str) -> str:
    """Return the path of the route that is meant: `/rank` for `//rank`, `/rank/` and, below `/ctr`, `/ctr/rank`.

    It is answered as such and not redirected: behind a proxy that ends TLS a redirect would lead to http://. A proxy
    may pass the sub-path `root_path` on or cut it off.
    """
    path = _slashes.sub("/", path)
    if root_path and (path == root_path or path.startswith(root_path + "/")):
        path = path[len(root_path) :]
    return path.rstrip("/") or "/"


def as_get(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """Answer HEAD with the head of the answer to GET."""

    def send_head(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        return send(message)

    return app({**scope, "method": "GET"}, receive, send_head)
