"""One RESP3 connection that many requests share: commands are pipelined, and invalidations arrive in band.

A general client (redis-py) spends more time on a request than the store does, and its async form has no client-side
caching (docs/adr/0002). What is needed here is small: write packed commands, hand replies back in their order, and hand
pushes over *between* the replies they came between. That order is what makes the item cache exact: a reply that was
read before a change is applied before the change's invalidation, never after it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

from app.errors import ConfigError, StoreError

Sink = Callable[[list[Any]], None]
_INCOMPLETE = object()

NEVER = float("inf")
TICK_S = 0.001
"""Event loops count milliseconds."""
LATE_S = 0.002
SECOND_LOOKS = 3


def pack(*words: str) -> bytes:
    """One command in RESP."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word.encode("utf-8", "surrogatepass")
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


class _Waiter:
    __slots__ = ("due", "future", "looked", "replies", "sink", "wanted")

    def __init__(self, future: asyncio.Future[list[Any]], wanted: int, due: float, sink: Sink | None) -> None:
        self.future = future
        self.wanted = wanted
        self.due = due
        self.looked = 0
        self.replies: list[Any] = []
        self.sink = sink


class Connection(asyncio.Protocol):
    """Use `connect`. Every waiter gets its replies or a StoreError, also when the connection is lost."""

    def __init__(self, on_push: Callable[[list[Any]], None], on_lost: Callable[[], None]) -> None:
        self._on_push = on_push
        self._on_lost = on_lost
        self._reader = hiredis.Reader(encoding="utf-8", errors="replace", notEnoughData=_INCOMPLETE)
        self._waiting: deque[_Waiter] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self.last_received = self._loop.time()

    @property
    def open(self) -> bool:
        return self._transport is not None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def send(
        self, packed: bytes, replies: int, timeout_s: float = NEVER, sink: Sink | None = None
    ) -> asyncio.Future[list[Any]]:
        """Write packed commands; the future gives their replies, errors among them as `hiredis.ReplyError` objects.

        Args:
            timeout_s: the future raises StoreError once so much time has passed in which the event loop was free to
                receive the replies. They are dropped when they come.
            sink: called with the replies as they are read, before anything that follows them on the wire.

        Raises StoreError where the connection is gone.
        """
        if self._transport is None:
            raise StoreError("the connection to the feature store is lost")
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        due = time.monotonic() + timeout_s
        # One timer for all, set for the first that is due: a timer for each costs a request more than its parsing.
        if due < self._timer_at:
            self._look_at(due)
        # What is asked while the store is at work goes out together, once the loop has been round: a write costs more
        # than the rest of this. The first is not kept, so that the store works while others are parsed.
        if self._unsent:
            self._unsent.append(packed)
        elif self._waiting:
            self._unsent.append(packed)
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(packed)
        self._waiting.append(_Waiter(future, replies, due, sink))
        return future

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _look_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._expire)

    def _expire(self) -> None:
        now, following = time.monotonic(), NEVER
        for waiter in self._waiting:
            if waiter.future.done():
                continue
            if now < waiter.due - TICK_S:
                following = min(following, waiter.due)
            elif now - waiter.due > LATE_S and waiter.looked < SECOND_LOOKS:
                # It is this process that was held up, not the store; the reply may be waiting in the socket.
                waiter.looked += 1
                following = min(following, now + LATE_S)
            else:
                waiter.future.set_exception(StoreError("the feature store did not answer in time"))
        self._timer, self._timer_at = None, NEVER
        if following < NEVER:
            self._look_at(following)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.last_received = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                if reply.__class__ is hiredis.PushNotification:
                    self._on_push(reply)
                else:
                    self._give(reply)
        except (hiredis.ProtocolError, IndexError):  # not RESP, or a reply nobody asked for
            self.close()

    def _give(self, reply: Any) -> None:
        waiter = self._waiting[0]
        waiter.replies.append(reply)
        if len(waiter.replies) < waiter.wanted:
            return
        self._waiting.popleft()
        error: Exception | None = None
        if waiter.sink is not None:
            try:
                waiter.sink(waiter.replies)
            except Exception as failure:  # the caller's own; it must not cost the other waiters their replies
                error = failure
        if not waiter.future.done():
            if error is None:
                waiter.future.set_result(waiter.replies)
            else:
                waiter.future.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(StoreError("the connection to the feature store was lost"))
        self._on_lost()


async def connect(
    url: str,
    *,
    timeout_s: float,
    on_push: Callable[[list[Any]], None],
    on_lost: Callable[[], None],
) -> Connection:
    """Connect, authenticate, select the database, switch to RESP3.

    Raises:
        StoreError: no connection within the time, or the server refused.
        ConfigError: the URL cannot be understood.
    """
    try:
        target: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        raise ConfigError(f"CTR_REDIS_URL: {error}") from error
    loop = asyncio.get_running_loop()

    def factory() -> Connection:
        return Connection(on_push, on_lost)

    try:
        async with asyncio.timeout(timeout_s):
            if path := target.get("path"):
                _, connection = await loop.create_unix_connection(factory, path)
            else:
                tls = _tls(target) if target.get("connection_class") is SSLConnection else None
                _, connection = await loop.create_connection(
                    factory, target.get("host", "localhost"), target.get("port", 6379), ssl=tls
                )
            try:
                await _greet(connection, target)
            except BaseException:
                connection.close()
                raise
    except (OSError, TimeoutError) as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
        raise StoreError(f"cannot connect to the feature store: {reason}") from error
    return connection


async def _greet(connection: Connection, target: dict[str, Any]) -> None:
    hello = ["HELLO", "3"]
    if password := target.get("password"):
        hello += ["AUTH", target.get("username") or "default", password]
    commands = [pack(*hello, "SETNAME", "ctr-serving")]
    if database := target.get("db"):
        commands.append(pack("SELECT", str(database)))
    for reply in await connection.send(b"".join(commands), len(commands)):
        if isinstance(reply, hiredis.ReplyError):
            hint = " (Redis 6 or newer, or Valkey, is needed)" if "unknown command" in str(reply) else ""
            raise StoreError(f"the feature store refused the connection: {str(reply)[:120]}{hint}")


def _tls(target: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=target.get("ssl_ca_certs"))
    if target.get("ssl_cert_reqs") in ("none", "CERT_NONE"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := target.get("ssl_certfile"):
        context.load_cert_chain(certificate, target.get("ssl_keyfile"))
    return context
