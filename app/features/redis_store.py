"""`RedisFeatureStore`: raw features in Redis 6 or newer, or Valkey, one HASH per entity."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import hiredis
import structlog

from app.errors import StoreError
from app.features.key_template import KeyTemplate
from app.features.redis_connect import connect
from app.features.resp_commands import key_command, pack_command
from app.features.resp_connection import RespConnection
from app.features.store import Fetched, Listener, RawFeatures, StoreStatus

log = structlog.get_logger(__name__)

HEARTBEAT_S = 1.0
RECONNECT_FIRST_S, RECONNECT_LONGEST_S = 0.05, 2.0
SCAN_COUNT, SCAN_TIMEOUT_S = 1000, 5.0
MAX_REASON = 120

pack_hgetall = key_command("HGETALL")


class RedisFeatureStore:
    """A feature store behind one connection, which all requests share.

    While the connection is down every fetch fails at once, and a task reconnects with backoff. A fetch that times out
    does not cost the connection: replies stay in order, and a late one goes to the listener alone. A connection that
    has been silent for longer than a heartbeat while a command was under way is closed.
    """

    def __init__(self, url: str, user_key: str, item_key: str, *, timeout_s: float = 0.03) -> None:
        """Connect nothing yet.

        Args:
            url: a `redis://`, `rediss://` or `unix://` URL.
            user_key, item_key: key templates, such as `ctr:v1:user:{id}`.
            timeout_s: what requests allow for a fetch; connecting may take a second even where that is less.
        """
        self._url = url
        self._user_key = KeyTemplate(user_key)
        self._item_key = KeyTemplate(item_key)
        self._connect_timeout_s = max(timeout_s, 1.0)
        self._connection: RespConnection | None = None
        self._listener: Listener | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._tracking = False
        self._detail = "not started"

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
        """Return the state of the connection, with the reason where there is none."""
        return StoreStatus(self._connection is not None, self.tracking, self._detail)

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
        """Read a user and items in one pipeline; see `FeatureStore.fetch`. Raises StoreError."""
        connection = self._connection
        if connection is None:
            raise StoreError(self._detail)
        if not item_ids:  # the usual request: its items are cached
            if user_id is None:
                return Fetched({}, ())
            replies = await connection.send(pack_hgetall(self._user_key.key(user_id)), 1, timeout_s)
            return Fetched(_hash_of(replies[0]), ())
        commands = [] if user_id is None else [pack_hgetall(self._user_key.key(user_id))]
        commands += [pack_hgetall(self._item_key.key(item_id)) for item_id in item_ids]
        items: list[RawFeatures] = []

        def on_replies(replies: list[Any]) -> None:
            items.extend(map(_hash_of, replies[-len(item_ids) :]))
            if self._listener is not None:
                self._listener.on_items(item_ids, items)

        replies = await connection.send(b"".join(commands), len(commands), timeout_s, on_replies)
        return Fetched({} if user_id is None else _hash_of(replies[0]), items)

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
                raise StoreError(f"the feature store refused SCAN: {str(reply)[:MAX_REASON]}")
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
            await connection.send(pack_command("PING"), 1, HEARTBEAT_S)
        except StoreError:
            log.warning("feature_store_silent", idle_s=round(idle_s, 2))
            connection.close()

    async def _try_connect(self) -> bool:
        try:
            connection = await connect(
                self._url, timeout_s=self._connect_timeout_s, on_push=self._on_push, on_lost=self._on_lost
            )
            try:
                self._tracking = await self._enable_tracking(connection)
            except StoreError:
                connection.close()
                raise
        except StoreError as error:
            if str(error) != self._detail:
                log.warning("feature_store_unreachable", reason=str(error))
            self._detail = str(error)
            return False
        self._connection = connection
        self._detail = "connected" if self._tracking else "connected, but the server does not report changes"
        log.info("feature_store_connected", tracking=self._tracking)
        return True

    async def _enable_tracking(self, connection: RespConnection) -> bool:
        command = pack_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._item_key.prefix)
        reply = (await connection.send(command, 1, self._connect_timeout_s))[0]
        if isinstance(reply, hiredis.ReplyError):
            log.error(
                "feature_store_tracking_refused", reason=str(reply)[:200], effect="items are read on each request"
            )
            return False
        return True

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


def _hash_of(reply: Any) -> RawFeatures:
    """Return the hash of an HGETALL's reply; an empty one if another program keeps another type under the key.

    Raises StoreError for any other error.
    """
    if reply.__class__ is dict:
        return reply
    if str(reply).startswith("WRONGTYPE"):
        return {}
    raise StoreError(f"the feature store answered with an error: {str(reply)[:MAX_REASON]}")
