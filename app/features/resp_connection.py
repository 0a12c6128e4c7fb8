"""`RespConnection`: one RESP3 connection that many requests share, with pipelined commands and pushes in band.

A general client (redis-py) spends more time on a request than the store does, and its asyncio form has no client-side
caching (docs/adr/0002). What is needed here is small: write packed commands, hand replies back in their order, and hand
pushes over *between* the replies they came between. That order keeps the item cache exact: a reply that was read before
a change is applied before the change's invalidation, never after it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis

from app.errors import StoreError
from app.features.resp_reader import RespReader
from app.features.store_errors import NOT_REDIS, explain_failure

NEVER = float("inf")
TICK_S = 0.001
"""Event loops count milliseconds."""
LATE_S = 0.002
"""A timer that fires so much late means that the event loop was held up."""
MAX_GRACE_CHECKS = 3


class _Waiter:
    """A caller of `RespConnection.send` whose replies are still to come."""

    __slots__ = ("due", "future", "grace_checks", "on_replies", "replies", "reply_count", "sent")

    def __init__(
        self,
        future: asyncio.Future[list[Any]],
        reply_count: int,
        sent: float,
        due: float,
        on_replies: Callable[[list[Any]], None] | None,
    ) -> None:
        self.future = future
        self.reply_count = reply_count
        self.sent = sent
        self.due = due
        self.grace_checks = 0
        self.replies: list[Any] = []
        self.on_replies = on_replies


class RespConnection(asyncio.Protocol):
    """A connection made by `app.features.redis_connect.connect`.

    Every waiter gets its replies or a StoreError, also if the connection is lost.
    """

    def __init__(
        self, on_push: Callable[[list[Any]], None], on_lost: Callable[[], None], *, patience_s: float = NEVER
    ) -> None:
        """Connect nothing: `app.features.redis_connect.connect` does.

        Args:
            on_push: gets each push as it is read.
            on_lost: called once at the end.
            patience_s: the connection is silent if nothing came for so long while something was waited for.
        """
        self._patience_s = patience_s
        self._on_push = on_push
        self._on_lost = on_lost
        self._reader = RespReader()
        self._waiters: deque[_Waiter] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = NEVER
        self.not_redis = False
        """Whether something came that is not RESP, which ends the connection."""
        self.lost_reason = ""
        """Why the connection was lost, as far as that is known."""
        self.silent = False
        """Whether the server owes replies and has sent nothing for `patience_s`."""
        self.last_received = self._loop.time()
        """When bytes last came, on the event loop's clock."""

    @property
    def open(self) -> bool:
        """Whether commands can be sent."""
        return self._transport is not None

    @property
    def waiting(self) -> int:
        """How many calls of `send` have replies still to come, those that timed out or were cancelled among them."""
        return len(self._waiters)

    def send(
        self,
        commands: bytes,
        replies: int,
        timeout_s: float = NEVER,
        on_replies: Callable[[list[Any]], None] | None = None,
    ) -> asyncio.Future[list[Any]]:
        """Write packed commands; the future gives their replies, errors among them as `hiredis.ReplyError` objects.

        Args:
            commands: as `pack_command` returns them, concatenated.
            replies: how many replies will come.
            timeout_s: the future raises StoreError once so much time has passed in which the event loop was free to
                receive the replies.
            on_replies: called with the replies as they are read, before anything that follows them on the wire, and
                also if they come too late for the future.

        Raises StoreError if the connection is lost.
        """
        if self._transport is None:
            raise StoreError("the connection to the feature store is lost")
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        now = time.monotonic()
        due = now + timeout_s
        # One timer for all, set for the first that is due: a timer for each costs a request more than its parsing.
        if due < self._timer_due:
            self._set_timer(due)
        # Commands sent while the store is at work go out together, once the loop has been round: a write costs more
        # than the rest of this. The first is not kept back, so that the store works while others are parsed.
        if self._unsent:
            self._unsent.append(commands)
        elif self._waiters:
            self._unsent.append(commands)
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(commands)
        self._waiters.append(_Waiter(future, replies, now, due, on_replies))
        return future

    def close(self) -> None:
        """Close the connection at once; waiters get a StoreError in the loop's next turn."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._expire)

    def _expire(self) -> None:
        now, next_due = time.monotonic(), NEVER
        for waiter in self._waiters:
            if waiter.future.done():
                continue
            if now < waiter.due - TICK_S:
                next_due = min(next_due, waiter.due)
            elif now - waiter.due > LATE_S and waiter.grace_checks < MAX_GRACE_CHECKS:
                # It is this process that was held up, not the store; the reply may be waiting in the socket.
                waiter.grace_checks += 1
                next_due = min(next_due, now + LATE_S)
            else:
                waiter.future.set_exception(StoreError("the feature store did not answer in time"))
                began_to_wait = max(self._waiters[0].sent, self.last_received)
                self.silent = now - began_to_wait >= self._patience_s - TICK_S
        self._timer, self._timer_due = None, NEVER
        if next_due < NEVER:
            self._set_timer(next_due)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to write to."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse what came, and hand replies and pushes over in their order."""
        self.last_received, self.silent = self._loop.time(), False
        try:
            for reply in self._reader.read(data):
                if reply.__class__ is hiredis.PushNotification:
                    self._on_push(reply)
                else:
                    self._hand_over(reply)
        except (hiredis.ProtocolError, IndexError):  # not RESP, or a reply to no command
            self.not_redis = True
            self.close()

    def _hand_over(self, reply: Any) -> None:
        waiter = self._waiters[0]
        waiter.replies.append(reply)
        if len(waiter.replies) < waiter.reply_count:
            return
        self._waiters.popleft()
        error: Exception | None = None
        if waiter.on_replies is not None:
            try:
                waiter.on_replies(waiter.replies)
            except Exception as failure:  # the caller's own; it must not cost the other waiters their replies
                error = failure
        if not waiter.future.done():
            if error is None:
                waiter.future.set_result(waiter.replies)
            else:
                waiter.future.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail every waiter, and report the loss."""
        self._transport = None
        self.lost_reason = NOT_REDIS if self.not_redis else explain_failure(exc) if exc else ""
        if self._timer is not None:
            self._timer.cancel()
        reason = f": {self.lost_reason}" if self.lost_reason else ""
        while self._waiters:
            future = self._waiters.popleft().future
            if not future.done():
                future.set_exception(StoreError(f"the connection to the feature store was lost{reason}"))
        self._on_lost()
