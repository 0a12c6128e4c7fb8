"""Bounds on the size and the time of a request's body."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from app.api.headers import Headers
from app.errors import BodyTooLarge, BodyTooSlow


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
        self._limit = limit
        self._timeout_s = timeout_s
        self._due: float | None = None
        """Loop time at which the body must be complete; None before it is first awaited."""
        self._size = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._due is None:
            self._due = asyncio.get_running_loop().time() + self._timeout_s
            if self._announced.isdigit() and (len(self._announced) > 18 or int(self._announced) > self._limit):
                raise self._too_large()
        message = await self._receive_in_time(self._due)
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise self._too_large()
        self._complete = not message.get("more_body")
        return message

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
            self.refusal = BodyTooSlow(f"it was not complete after {self._timeout_s:g} s")
            raise self.refusal from None
        finally:
            timer.cancel()

    def _too_large(self) -> BodyTooLarge:
        self.refusal = BodyTooLarge(f"at most {self._limit} bytes are read")
        return self.refusal
