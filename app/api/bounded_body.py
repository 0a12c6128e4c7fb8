"""Bounds on the size and the time of a request's body, and what becomes of a body that is refused."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from app.api.headers import Headers
from app.errors import BodyTooLarge, BodyTooSlow

DRAIN_BYTES = 64 * 2**20
DRAIN_S = 30.0
DRAIN_SILENCE_S = 5.0
"""How much of an unwanted body is read and thrown away, for how long, and how long after its last piece."""


async def read_body(receive: Receive) -> bytes:
    """Read the whole body. `receive` sets its bounds: inside `Edge` it is a `BoundedBody`.

    Raises ClientDisconnect if the client leaves before the end.
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
    """An ASGI `receive` that bounds the body. Messages after the end of the body pass unbounded.

    Raises:
        BodyTooLarge: by Content-Length before anything is read, or while reading: one network read is held at most.
        BodyTooSlow: the body is not complete `timeout_s` seconds after it was first awaited.
    """

    def __init__(self, receive: Receive, headers: Headers, limit: int, timeout_s: float) -> None:
        self.refusal: BodyTooLarge | BodyTooSlow | None = None
        """The error that was raised, because frameworks turn errors of `receive` into their own."""
        self._receive = receive
        self._announced = headers.get(b"content-length", b"")
        self.unread = self._announced not in (b"", b"0") or b"transfer-encoding" in headers
        """Whether some of the body may still come."""
        self._asks_first = b"expect" in headers
        self._limit = limit
        self._timeout_s = timeout_s
        self._due: float | None = None
        """Loop time at which the body must be complete; None before it is first awaited."""
        self._size = 0
        self._complete = False
        self._late = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._due is None:
            self._due = asyncio.get_running_loop().time() + self._timeout_s
            if self._announces_too_much():
                raise self._too_large()
        message = await self._receive_in_time(self._due)
        self.unread = bool(message.get("more_body"))
        self._complete = not self.unread
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise self._too_large()
        return message

    @property
    def ends_connection(self) -> bool:
        """Whether a connection whose client sent this body, which nobody read, is best closed.

        A body within the limit is read to its end, and the next request can follow it. A larger one may be endless,
        and a client that asked first (`Expect: 100-continue`) may send it or not.
        """
        known = self._announced.isdigit() and not self._announces_too_much()
        return self._asks_first or not known or self._late

    async def drain(self) -> None:
        """Read what is still to come and throw it away, within bounds, or until the client leaves.

        A client that writes its whole body before it reads can read its answer only if somebody takes the body: a
        socket that is closed over unread bytes resets the connection.
        """
        loop = asyncio.get_running_loop()
        due, size = loop.time() + DRAIN_S, 0
        try:
            while self.unread and size < DRAIN_BYTES:
                async with asyncio.timeout_at(min(due, loop.time() + DRAIN_SILENCE_S)):
                    message = await self._receive()
                size += len(message.get("body", b""))
                self.unread = bool(message.get("more_body"))
        except TimeoutError:
            pass

    def _announces_too_much(self) -> bool:
        return self._announced.isdigit() and (len(self._announced) > 18 or int(self._announced) > self._limit)

    async def _receive_in_time(self, due: float) -> Message:
        """Receive a message, or raise BodyTooSlow at this loop time.

        `asyncio.timeout_at` does the same, and costs each request 6 us more (docs/adr/0011).
        """
        task = asyncio.current_task()
        assert task is not None
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        timer = asyncio.get_running_loop().call_at(due, expire)
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if not expired or task.uncancel() > 0:
                raise  # somebody else cancels the task
            self._late = self.unread = True
            self.refusal = BodyTooSlow(
                f"it was not complete after {self._timeout_s:g} s; send it faster, or raise CTR_BODY_TIMEOUT_S"
            )
            raise self.refusal from None
        finally:
            timer.cancel()

    def _too_large(self) -> BodyTooLarge:
        self.refusal = BodyTooLarge(
            f"at most {self._limit} bytes are read; send fewer candidates in a request, or raise CTR_MAX_BODY_BYTES"
        )
        return self.refusal
