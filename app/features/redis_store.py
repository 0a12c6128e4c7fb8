"""`RedisFeatureStore`: raw features in Redis, Valkey or what speaks their protocol, one HASH per entity.

A server without RESP3 or CLIENT TRACKING reports no changes, so that items are read by each request, or aged; the log
says so once a connection. A server that answers and refuses to read is asked again every second, and `status` has its
answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import structlog

from app.errors import StoreError
from app.features.key_template import KeyTemplate
from app.features.redis_tracking import connect_tracked
from app.features.resp_commands import key_command, pack_command
from app.features.resp_connection import RespConnection
from app.features.store import Fetched, Listener, RawFeatures, StoreStatus
from app.features.store_errors import explain_reply
from app.features.store_problem import StoreProblem
from app.redis_url import parse_redis_url

log = structlog.get_logger(__name__)

HEARTBEAT_S = 1.0
RECONNECT_FIRST_S, RECONNECT_LONGEST_S = 0.05, 2.0
SCAN_COUNT, SCAN_TIMEOUT_S = 1000, 5.0
PROBE_ID = "ctr-serving-probe"
"""No entity's id: its keys are read to find out whether such keys may be."""

pack_hgetall = key_command("HGETALL")


class _Refused(StoreError):
    """The server answered, with an error."""


class RedisFeatureStore:
    """A feature store behind one connection, which all requests share.

    While the connection is down every fetch fails at once, and a task reconnects with backoff. A fetch that times out
    does not cost the connection: replies stay in order, and a late one goes to the listener alone. A connection that
    has been silent for longer than a heartbeat while a command was under way is closed.
    """

    def __init__(
        self, url: str, user_key: str, item_key: str, *, timeout_s: float = 0.03, item_max_age_s: float | None = None
    ) -> None:
        """Connect nothing yet.

        Args:
            url: as `app.redis_url` reads it.
            user_key, item_key: key templates, such as `ctr:v1:user:{id}`.
            timeout_s: what requests allow for a fetch; connecting may take a second even where that is less.
            item_max_age_s: for the log alone: how long items are cached where changes are not reported, None if not.

        Raises ConfigError if the URL has no one meaning.
        """
        self._url = parse_redis_url(url)
        self._user_key = KeyTemplate(user_key)
        self._item_key = KeyTemplate(item_key)
        self._connect_timeout_s = max(timeout_s, 1.0)
        self._untracked_effect = (
            f"cached items are read again after {item_max_age_s:g} s"
            if item_max_age_s
            else ("each request reads its items; CTR_ITEM_MAX_AGE_S caches them for so long")
        )
        self._connection: RespConnection | None = None
        self._listener: Listener | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._tracking = False
        self._detail = "not started"
        self._problem = StoreProblem()

    async def start(self, listener: Listener) -> None:
        """Connect, or keep trying in the background: a store that is down does not stop the service from starting."""
        self._listener = listener
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
    def tracking(self) -> bool:
        """Whether the server reports changes, which it can refuse to."""
        return self._tracking and self._connection is not None

    def status(self) -> StoreStatus:
        """Return the state of the connection, with the reason where there is none, or where nothing can be read."""
        connected = self._connection is not None
        return StoreStatus(connected, self.tracking, self._detail, self._problem.reason if connected else "")

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
        """Read a user and items in one pipeline; see `FeatureStore.fetch`. Raises StoreError."""
        connection = self._connection
        if connection is None:
            raise StoreError(self._detail)
        if user_id is None and not item_ids:
            return Fetched({}, ())
        commands = [] if user_id is None else [pack_hgetall(self._user_key.key(user_id))]
        items: list[RawFeatures] = []
        on_replies: Callable[[list[Any]], None] | None = None  # none for the usual request: its items are cached
        if item_ids:
            commands += [pack_hgetall(self._item_key.key(item_id)) for item_id in item_ids]

            def on_replies(replies: list[Any]) -> None:
                items.extend(map(self._hash_of, replies[-len(item_ids) :]))
                if self._listener is not None:
                    self._listener.on_items(item_ids, items)

        try:
            replies = await connection.send(b"".join(commands), len(commands), timeout_s, on_replies)
        except _Refused:
            raise
        except StoreError:
            if self._connection is not None:
                self._problem.on_late(timeout_s)
            raise
        self._problem.on_answer()
        return Fetched({} if user_id is None else self._hash_of(replies[0]), items)

    async def scan(self) -> AsyncIterator[list[str]]:
        """Iterate over the ids of all keys that fit the item template. Raises StoreError."""
        cursor = "0"
        while True:
            connection = self._connection
            if connection is None:
                raise StoreError(self._detail)
            command = pack_command("SCAN", cursor, "MATCH", self._item_key.pattern, "COUNT", str(SCAN_COUNT))
            reply = (await connection.send(command, 1, SCAN_TIMEOUT_S))[0]
            if not isinstance(reply, list):
                self._problem.log_once(
                    "SCAN refused", explain_reply(reply), "items are read when they are first asked for"
                )
                raise StoreError(f"the feature store refused SCAN: {explain_reply(reply)}")
            cursor = str(reply[0])
            ids = [self._item_key.id(key) for key in reply[1]]
            yield [item_id for item_id in ids if item_id is not None]
            if cursor == "0":
                return

    async def _keep_connected(self) -> None:
        delay_s = RECONNECT_FIRST_S
        while True:
            if self._connection is None:
                await asyncio.sleep(delay_s)
                delay_s = RECONNECT_FIRST_S if await self._try_connect() else min(delay_s * 2, RECONNECT_LONGEST_S)
                continue
            self._lost.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), HEARTBEAT_S)
                continue
            await self._heartbeat(self._connection)

    async def _heartbeat(self, connection: RespConnection | None) -> None:
        if connection is None or not connection.open:
            return
        idle_s = asyncio.get_running_loop().time() - connection.last_received
        if idle_s < HEARTBEAT_S / 2:
            return
        try:
            await self._probe(connection, HEARTBEAT_S)
        except StoreError:
            log.warning("feature_store_silent", idle_s=round(idle_s, 2))
            connection.close()

    async def _probe(self, connection: RespConnection, timeout_s: float) -> None:
        """Read keys that nobody has, to find out whether such keys may be read. Raises StoreError without an answer."""
        keys = self._user_key.key(PROBE_ID), self._item_key.key(PROBE_ID)
        for reply in await connection.send(b"".join(map(pack_hgetall, keys)), len(keys), timeout_s):
            with contextlib.suppress(StoreError):
                self._hash_of(reply)

    async def _probe_new(self, connection: RespConnection) -> None:
        """Probe a new connection, on which everything that is refused is logged anew. Raises StoreError."""
        self._problem.on_connected()
        await self._probe(connection, self._connect_timeout_s)

    async def _try_connect(self) -> bool:
        try:
            greeted, refusal = await connect_tracked(
                self._url,
                self._item_key.prefix,
                self._probe_new,
                timeout_s=self._connect_timeout_s,
                on_push=self._on_push,
                on_lost=self._on_lost,
            )
        except StoreError as error:
            self._detail = str(error)
            if self._problem.is_new(self._detail):
                log.warning("feature_store_unreachable", reason=self._detail)
            return False
        self._connection = greeted.connection
        self._tracking = not refusal
        self._detail = (
            "connected"
            if self._tracking
            else f"connected; the server reports no changes, so {self._untracked_effect} ({refusal})"
        )
        log.info("feature_store_connected", store=str(self._url), server=greeted.server, tracking=self._tracking)
        if refusal:
            log.warning("feature_store_reports_no_changes", reason=refusal, effect=self._untracked_effect)
        return True

    def _hash_of(self, reply: Any) -> RawFeatures:
        """Return the hash of an HGETALL's reply; an empty one if another program keeps another type under the key.

        Raises StoreError for any other error.
        """
        if reply.__class__ is dict:
            return reply
        if reply.__class__ is list:  # RESP2 has no maps
            return dict(zip(reply[::2], reply[1::2], strict=False))
        reason = explain_reply(reply)
        if str(reply).startswith("WRONGTYPE"):
            self._problem.log_once("WRONGTYPE", reason, "such users and items count as unknown")
            self._detail = f"connected; some keys cannot be read: {reason}"
            return {}
        self._problem.on_refusal(str(reply).partition(" ")[0], reason)
        raise _Refused(f"the feature store answered with an error: {reason}")

    def _on_push(self, push: list[Any]) -> None:
        if push[0] != "invalidate" or self._listener is None:
            return
        if push[1] is None:  # FLUSHALL or FLUSHDB
            self._listener.on_invalidate(None)
            return
        ids = [self._item_key.id(key) for key in push[1] if isinstance(key, str)]
        self._listener.on_invalidate([item_id for item_id in ids if item_id is not None])

    def _on_lost(self) -> None:
        if self._connection is not None and self._connection.open:
            return  # the connection that was lost had never been put to use
        self._connection = None
        self._detail = "the connection to the feature store was lost"
        self._lost.set()
        if self._listener is not None:
            self._listener.on_disconnect()
