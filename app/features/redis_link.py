"""`RedisLink`: the connection to one server, made anew when it is lost, and closed to requests while that is of no use.

An outage costs a request nothing: commands are sent only to a server that answers. One that is silent, always too late
or refuses everything is asked by this link alone, a few times a second, and requests go on as soon as it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import hiredis
import structlog

from app.errors import StoreError
from app.features.redis_connect import Greeted
from app.features.redis_tracking import connect_tracked
from app.features.resp_connection import RespConnection
from app.features.store_errors import explain_reply
from app.features.store_problem import StoreProblem
from app.redis_url import RedisUrl

log = structlog.get_logger(__name__)

HEARTBEAT_S, HEARTBEAT_TIMEOUT_S = 0.5, 1.0
TROUBLED_HEARTBEAT_S = 0.25
"""How often a server that is of no use is asked whether it is again."""
RECONNECT_FIRST_S, RECONNECT_LONGEST_S = 0.05, 0.5
CONNECT_TIMEOUT_S = 1.0
LOST = "the connection to the feature store was lost"


class RedisLink:
    """A connection to one server, and whether it is worth asking. Nothing is sent through one that is not."""

    def __init__(
        self,
        find: Callable[[], Awaitable[RedisUrl]],
        prefix: str,
        probe: Callable[[Greeted | None], Sequence[bytes]],
        *,
        timeout_s: float,
        untracked_effect: str,
        tolerated: tuple[str, ...] = ("WRONGTYPE",),
        on_push: Callable[[list[Any]], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Connect nothing yet.

        Args:
            find: returns where the server is, each time that it is connected to. Raises StoreError.
            prefix: what the keys begin with of which changes are reported.
            probe: returns commands that read what requests read, for a server that was just greeted or for a heartbeat.
            timeout_s: how long requests wait for an answer; connecting may take a second even where that is less.
            untracked_effect: for the log: what it means that a server reports no changes.
            tolerated: first words of errors that concern single keys: the server answers for others.
            on_push: gets the server's reports, in order with the replies.
            on_lost: called when the connection was lost, after which reports may have been missed.
        """
        self._find, self._prefix, self._probe = find, prefix, probe
        self._timeout_s = timeout_s
        self._untracked_effect = untracked_effect
        self._tolerated = tolerated
        self._on_push, self._on_connection_lost = on_push, on_lost
        self._connection: RespConnection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._tracking = False
        self._refusal = ""
        self._detail = "not started"
        self.problem = StoreProblem()

    async def start(self) -> None:
        """Connect, or keep trying in the background."""
        await self._try_connect()
        self._keeper = asyncio.create_task(self._keep_connected(), name="feature-store")

    async def stop(self) -> None:
        """Close the connection for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._detail = "stopped"

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    @property
    def tracking(self) -> bool:
        """Whether the server reports changes, which it can refuse to."""
        return self._tracking and self._connection is not None

    @property
    def detail(self) -> str:
        """The state of the connection in words, and why there is none."""
        return self._detail

    @property
    def trouble(self) -> str:
        """Why the server is not asked though it is connected; empty if it is."""
        if self._connection is not None and self._connection.silent:
            return f"no answer within {self._timeout_s * 1000:g} ms (CTR_REDIS_TIMEOUT_MS)"
        return self._refusal or self.problem.lateness

    async def send(
        self,
        commands: bytes,
        replies: int,
        timeout_s: float,
        on_replies: Callable[[list[Any]], None] | None = None,
    ) -> list[Any]:
        """Send commands and return their replies; see `RespConnection.send`.

        Raises StoreError: at once, with nothing sent, if there is no connection or it is not worth asking.
        """
        connection = self._connection
        if connection is None:
            raise StoreError(self._detail)
        if connection.silent or self._refusal or self.problem.late:
            raise StoreError(f"the feature store is not asked: {self.trouble}")
        try:
            answer = await connection.send(commands, replies, timeout_s, on_replies)
        except StoreError:
            if self._connection is connection and timeout_s >= self._timeout_s:
                self.problem.on_late(self._timeout_s)
            raise
        self.problem.on_answer()
        return answer

    async def _keep_connected(self) -> None:
        delay_s = RECONNECT_FIRST_S
        while True:
            if self._connection is None:
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # workers do not come back all at once
                delay_s = RECONNECT_FIRST_S if await self._try_connect() else min(delay_s * 2, RECONNECT_LONGEST_S)
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                # Not wait_for, which in Python 3.11 may drop that it is cancelled.
                async with asyncio.timeout(TROUBLED_HEARTBEAT_S if self.trouble else HEARTBEAT_S):
                    await self._wake.wait()
                continue
            await self._heartbeat(self._connection)

    async def _heartbeat(self, connection: RespConnection | None) -> None:
        if connection is None or not connection.open:
            return
        idle_s = asyncio.get_running_loop().time() - connection.last_received
        if idle_s < HEARTBEAT_S / 2 and not self.trouble:
            return
        try:
            await self._read_probe(connection, self._probe(None), HEARTBEAT_TIMEOUT_S)
        except StoreError:
            if self.problem.is_new("silence"):
                log.warning("feature_store_silent", idle_s=round(idle_s, 2))
            connection.close()

    async def _read_probe(self, connection: RespConnection, commands: Sequence[bytes], timeout_s: float) -> None:
        """Find out whether the server reads keys, and in time. Raises StoreError without an answer."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        replies = await connection.send(b"".join(commands), len(commands), timeout_s)
        if loop.time() - began < self._timeout_s:
            self.problem.on_answer()
        errors = [str(reply) for reply in replies if isinstance(reply, hiredis.ReplyError)]
        refusals = [error for error in errors if not error.startswith(self._tolerated)]
        for error in refusals:
            self.problem.on_refusal(error.partition(" ")[0], explain_reply(error))
        self._refusal = explain_reply(refusals[0]) if refusals and len(refusals) == len(replies) else ""

    async def _probe_new(self, greeted: Greeted) -> None:
        """Probe a new connection, on which everything that is refused is logged anew. Raises StoreError."""
        self.problem.on_connected()
        timeout_s = max(self._timeout_s, CONNECT_TIMEOUT_S)
        await self._read_probe(greeted.connection, self._probe(greeted), timeout_s)

    async def _try_connect(self) -> bool:
        try:
            url = await self._find()
            greeted, refusal = await connect_tracked(
                url,
                self._prefix,
                self._probe_new,
                timeout_s=max(self._timeout_s, CONNECT_TIMEOUT_S),
                patience_s=self._timeout_s,
                on_push=self._on_push,
                on_lost=self._on_lost,
            )
        except StoreError as error:
            self._detail = str(error)
            if self.problem.is_new(self._detail):
                log.warning("feature_store_unreachable", reason=self._detail)
            return False
        if not greeted.connection.open:  # lost before it was put to use
            self._detail = LOST
            return False
        self._connection = greeted.connection
        self._tracking = not refusal
        self._detail = (
            "connected"
            if self._tracking
            else f"connected; the server reports no changes, so {self._untracked_effect} ({refusal})"
        )
        log.info("feature_store_connected", store=str(url), server=greeted.server, tracking=self._tracking)
        if refusal:
            log.warning("feature_store_reports_no_changes", reason=refusal, effect=self._untracked_effect)
        return True

    def _on_lost(self) -> None:
        if self._connection is None or self._connection.open:
            return  # the connection that was lost had never been put to use
        self._connection = None
        self._detail = LOST
        self._wake.set()
        self._on_connection_lost()
