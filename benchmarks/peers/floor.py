"""The floor: a service that reads a request and answers as many bytes as a real answer has, without any work."""

from __future__ import annotations

from typing import Any

import uvicorn

from benchmarks.peers import published

SIZE = b"x-answer-bytes"
"""Header that holds the size of the answer, so that one process serves every number of candidates."""


class Floor:
    """An ASGI application that answers as many bytes as a header asks for."""

    def __init__(self) -> None:
        self._answers: dict[bytes, bytes] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size = b"2"
        for name, value in scope["headers"]:
            if name == SIZE:
                size = value
        while (await receive()).get("more_body"):
            pass
        content = self._answers.get(size)
        if content is None:
            content = self._answers[size] = b'"' + b"x" * (int(size) - 2) + b'"'
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def main() -> None:
    options = published.options()
    uvicorn.run(
        Floor(),
        port=options.port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    main()
