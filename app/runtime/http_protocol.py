"""uvicorn's HTTP/1.1 on a connection, with an answer's head and body in one write.

uvicorn writes them one after the other. The second write costs 5 us of a request, and the first wakes a client who
cannot begin yet.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

STATUS_LINE, CONTINUE, END_OF_HEAD = b"HTTP/1.1 ", b"HTTP/1.1 100 ", b"\r\n\r\n"


class HttpProtocol(HttpToolsProtocol):
    """Not for WebSockets: an upgrade's head is an answer by itself."""

    transport: HeadKeeper

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(HeadKeeper(transport))

    def on_response_complete(self) -> None:
        self.transport.flush()  # to HEAD the head is all
        super().on_response_complete()


class HeadKeeper(asyncio.Transport):
    """Writes a head together with what comes after it, or when it is flushed or closed.

    It knows a head by its first and last bytes; what it takes for one by mistake goes out when the answer ends at last.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._head = b""

    def write(self, data: Any) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif (
            isinstance(data, bytes)
            and data.startswith(STATUS_LINE)
            and data.endswith(END_OF_HEAD)
            and not data.startswith(CONTINUE)
        ):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()
