"""Where raw features come from: one round trip per request, and news of what changed.

`FeatureStore` is what the ranker needs; `RedisFeatureStore` speaks to Redis or Valkey, and
`app.features.memory_store` keeps everything in the process. Both tell a `Listener` which items changed, in order with
the items they deliver.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import hiredis
import structlog

from app.errors import StoreError
from app.features.resp_connection import Connection, connect, pack

log = structlog.get_logger(__name__)

Raw = Mapping[str, Any]
"""Field name to value; empty for an entity the store does not know."""

HEARTBEAT_S = 1.0
RECONNECT_FIRST_S, RECONNECT_LONGEST_S = 0.05, 2.0
SCAN_COUNT, SCAN_TIMEOUT_S = 1000, 5.0


class Listener(Protocol):
    """Told of everything, synchronously and in the order it happened in the store."""

    def fetched(self, item_ids: Sequence[str], raws: Sequence[Raw]) -> None:
        """These items were read; an empty mapping is an item the store does not know."""

    def changed(self, item_ids: Sequence[str] | None) -> None:
        """These items were written since; None means any may have been."""

    def suspect(self) -> None:
        """Changes may have been missed: nothing read before now can be called fresh."""


@dataclass(frozen=True)
class StoreStatus:
    connected: bool
    tracking: bool
    """The server reports changes; without it nothing may be cached."""
    detail: str


class Fetched(NamedTuple):
    """What one round trip read."""

    user: Raw
    """Features of the user; empty where none was asked for."""
    items: Sequence[Raw]
    """Features of each item, in the order of the ids."""


class FeatureStore(Protocol):
    @property
    def tracking(self) -> bool:
        """As in `status()`; asked on every request."""

    async def start(self, listener: Listener) -> None: ...

    async def stop(self) -> None: ...

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
        """Read a user (None: none) and items in one round trip.

        The items are delivered to the listener first, in order with the changes that the store reports: before this
        returns, what was read here may have been read again, changed or dropped by the listener.

        Raises StoreError: not connected, no answer in time, or an answer that is an error.
        """

    def scan(self) -> AsyncIterator[list[str]]:
        """Ids of all items, in batches, in no order, some perhaps twice. Raises StoreError."""

    def status(self) -> StoreStatus: ...


class KeyTemplate:
    """`ctr:v1:item:{id}`: from an id to a key and back."""

    def __init__(self, template: str) -> None:
        self.prefix, self.suffix = template.split("{id}")

    def hgetall(self, entity_id: str) -> bytes:
        """The command that reads this entity, in RESP."""
        key = self.key(entity_id).encode()
        return b"*2\r\n$7\r\nHGETALL\r\n$%d\r\n%b\r\n" % (len(key), key)

    def key(self, entity_id: str) -> str:
        return f"{self.prefix}{entity_id}{self.suffix}"

    def id(self, key: str) -> str | None:
        if not key.startswith(self.prefix) or not key.endswith(self.suffix):
            return None
        return key[len(self.prefix) : len(key) - len(self.suffix)]

    @property
    def pattern(self) -> str:
        """For SCAN MATCH, glob characters escaped."""
        return "".join(f"\\{c}" if c in "*?[]\\" else c for c in self.prefix) + "*" + self.suffix


class RedisFeatureStore:
    """Features in Redis 6 or newer, or Valkey: one HASH per entity.

    One connection carries everything. While it is down every fetch fails at once and a task reconnects with backoff.
    A fetch that times out does not cost the connection: replies stay in order, a late one is dropped. A connection that
    has said nothing for longer than a heartbeat while something was asked is given up.
    """

    def __init__(self, url: str, user_key: str, item_key: str, *, timeout_s: float = 0.03) -> None:
        self._url = url
        self._user_key = KeyTemplate(user_key)
        self._item_key = KeyTemplate(item_key)
        self._connect_timeout_s = max(timeout_s, 1.0)
        self._connection: Connection | None = None
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
        return self._tracking and self._connection is not None

    def status(self) -> StoreStatus:
        return StoreStatus(self._connection is not None, self.tracking, self._detail)

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
        connection = self._connection
        if connection is None:
            raise StoreError(self._detail)
        if not item_ids:  # the usual request: its items are cached
            if user_id is None:
                return Fetched({}, ())
            replies = await connection.send(self._user_key.hgetall(user_id), 1, timeout_s)
            return Fetched(_hash_or_nothing(replies[0]), ())
        packed = [] if user_id is None else [self._user_key.hgetall(user_id)]
        packed += map(self._item_key.hgetall, item_ids)
        items: list[Raw] = []

        def deliver(replies: list[Any]) -> None:
            items.extend(map(_hash_or_nothing, replies[-len(item_ids) :]))
            if self._listener is not None:
                self._listener.fetched(item_ids, items)

        replies = await connection.send(b"".join(packed), len(packed), timeout_s, deliver)
        return Fetched({} if user_id is None else _hash_or_nothing(replies[0]), items)

    async def scan(self) -> AsyncIterator[list[str]]:
        cursor = "0"
        while True:
            connection = self._connection
            if connection is None:
                raise StoreError(self._detail)
            command = pack("SCAN", cursor, "MATCH", self._item_key.pattern, "COUNT", str(SCAN_COUNT))
            reply = (await connection.send(command, 1, SCAN_TIMEOUT_S))[0]
            if not isinstance(reply, list):
                raise StoreError(f"the feature store refused SCAN: {str(reply)[:120]}")
            cursor = str(reply[0])
            ids = [self._item_key.id(key) for key in reply[1]]
            yield [item_id for item_id in ids if item_id is not None]
            if cursor == "0":
                return

    async def _keep_connected(self) -> None:
        delay = RECONNECT_FIRST_S
        while True:
            if self._connection is None:
                await asyncio.sleep(delay)
                delay = RECONNECT_FIRST_S if await self._try_connect() else min(delay * 2, RECONNECT_LONGEST_S)
                continue
            self._lost.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), HEARTBEAT_S)
                continue
            await self._heartbeat(self._connection)

    async def _heartbeat(self, connection: Connection | None) -> None:
        if connection is None or not connection.open:
            return
        idle_s = asyncio.get_running_loop().time() - connection.last_received
        if idle_s < HEARTBEAT_S / 2:
            return
        try:
            await connection.send(pack("PING"), 1, HEARTBEAT_S)
        except StoreError:
            log.warning("feature_store_silent", idle_s=round(idle_s, 2))
            connection.close()

    async def _try_connect(self) -> bool:
        try:
            connection = await connect(
                self._url, timeout_s=self._connect_timeout_s, on_push=self._pushed, on_lost=self._connection_lost
            )
            try:
                self._tracking = await self._track(connection)
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

    async def _track(self, connection: Connection) -> bool:
        command = pack("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._item_key.prefix)
        reply = (await connection.send(command, 1, self._connect_timeout_s))[0]
        if isinstance(reply, hiredis.ReplyError):
            log.error(
                "feature_store_tracking_refused", reason=str(reply)[:200], effect="items are read on each request"
            )
            return False
        return True

    def _pushed(self, push: list[Any]) -> None:
        if push[0] != "invalidate" or self._listener is None:
            return
        if push[1] is None:  # FLUSHALL or FLUSHDB
            self._listener.changed(None)
            return
        ids = [self._item_key.id(key) for key in push[1] if isinstance(key, str)]
        self._listener.changed([item_id for item_id in ids if item_id is not None])

    def _connection_lost(self) -> None:
        if self._connection is not None and self._connection.open:
            return  # a connection that was never put to use
        self._connection = None
        self._detail = "the connection to the feature store was lost"
        self._lost.set()
        if self._listener is not None:
            self._listener.suspect()


def _hash_or_nothing(reply: Any) -> Raw:
    """The hash; nothing where another program keeps another type under the key. Raises StoreError for other errors."""
    if reply.__class__ is dict:
        return reply
    if str(reply).startswith("WRONGTYPE"):
        return {}
    raise StoreError(f"the feature store answered with an error: {str(reply)[:120]}")
