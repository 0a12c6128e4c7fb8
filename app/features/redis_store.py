"""`RedisFeatureStore`: raw features in Redis, Valkey or what speaks their protocol, one HASH per entity.

A server without RESP3 or CLIENT TRACKING reports no changes, so that items are read by each request, or aged; the log
says so once a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from app.errors import StoreError
from app.features.hash_command import HashCommand
from app.features.redis_client import connect_client
from app.features.redis_connect import Greeted
from app.features.redis_link import RedisLink
from app.features.redis_scan import scan_keys
from app.features.redis_sentinel import find_master
from app.features.store import Fetched, Listener, RawFeatures, StoreStatus
from app.features.store_errors import explain_reply
from app.features.stored_hashes import StoredHashes, untracked_effect
from app.redis_url import RedisUrl, parse_redis_url

PROBES = 16
"""Keys of each template that are read of a cluster's node, which may by chance have one of them."""


class RedisFeatureStore:
    """A feature store behind one connection, which all requests share.

    A fetch that times out does not cost the connection: replies stay in order, and a late one goes to the listener
    alone. While the server is not worth asking every fetch fails at once (`app.features.redis_link`).
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
        self._hashes = StoredHashes(user_key, item_key)
        self._listener: Listener | None = None
        self._probes = 1
        self._link = RedisLink(
            self._find,
            self._hashes.item_key.prefix,
            self._probe,
            timeout_s=timeout_s,
            untracked_effect=untracked_effect(item_max_age_s),
            on_push=self._on_push,
            on_lost=self._on_lost,
        )

    async def start(self, listener: Listener) -> None:
        """Connect, or keep trying in the background: a store that is down does not stop the service from starting."""
        self._listener = listener
        await self._link.start()

    async def stop(self) -> None:
        """Close the connection for good."""
        await self._link.stop()

    @property
    def tracking(self) -> bool:
        """Whether the server reports changes, which it can refuse to."""
        return self._link.tracking

    def status(self) -> StoreStatus:
        """Return the state of the connection, with the reason where there is none, or where nothing can be read."""
        link = self._link
        problem = (link.trouble or link.problem.reason) if link.connected else ""
        wrong_type = self._hashes.wrong_type
        detail = f"{link.detail}; {wrong_type}" if link.connected and wrong_type else link.detail
        return StoreStatus(link.connected, link.tracking, detail, problem)

    def select_fields(self, user: Sequence[str], item: Sequence[str]) -> None:
        """Read these fields from now on; see `FeatureStore.select_fields`."""
        if self._hashes.select(user, item) and self._listener is not None:
            self._listener.on_invalidate(None)

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
        """Read a user and items in one pipeline; see `FeatureStore.fetch`. Raises StoreError."""
        if user_id is None and not item_ids:
            return Fetched({}, ())
        hashes, item_hash = self._hashes, self._hashes.item_hash
        commands: list[bytes] = []
        items: list[RawFeatures] = []
        if user_id is not None:
            user_hash = hashes.user_command(user_id)
            commands.append(user_hash.pack(hashes.user_key.key(user_id)))
        commands += [item_hash.pack(hashes.item_key.key(item_id)) for item_id in item_ids]

        def on_replies(replies: list[Any]) -> None:
            if item_ids:  # seldom: a usual request's items are cached
                items.extend(self._features(item_hash, reply) for reply in replies[-len(item_ids) :])
                if self._listener is not None:
                    self._listener.on_items(item_ids, items)
                    if item_hash is not hashes.item_hash:  # a version that went live meanwhile reads other fields
                        self._listener.on_invalidate(item_ids)
            if user_id is not None:  # here, as a value of 30 MB comes after its request has given up
                hashes.note_user(user_id, user_hash, replies[0])

        replies = await self._link.send(b"".join(commands), len(commands), timeout_s, on_replies)
        return Fetched({} if user_id is None else self._features(user_hash, replies[0]), items)

    async def scan(self) -> AsyncIterator[list[str]]:
        """Iterate over the ids of all keys that fit the item template. Raises StoreError."""
        async for ids in scan_keys(self._link, self._hashes.item_key):
            yield ids

    async def _find(self) -> RedisUrl:
        return await asyncio.to_thread(find_master, self._url, connect_client) if self._url.sentinels else self._url

    def _probe(self, greeted: Greeted | None) -> list[bytes]:
        """Return commands that read keys which nobody has, to find out whether such keys may be read."""
        if greeted is not None:
            self._probes = PROBES if greeted.mode == "cluster" else 1
            self._hashes.wrong_type = ""
        return self._hashes.probe(self._probes)

    def _features(self, command: HashCommand, reply: Any) -> RawFeatures:
        """Return what a reply holds; nothing if another program keeps another type under the key.

        Raises StoreError for any other error.
        """
        features = command.features(reply)
        if features is None:
            features = self._hashes.on_error(reply, self._link.problem)
        if features is None:
            raise StoreError(f"the feature store answered with an error: {explain_reply(reply)}")
        return features

    def _on_push(self, push: list[Any]) -> None:
        if self._listener is not None:
            self._listener.on_invalidate(self._hashes.changed_items(push))

    def _on_lost(self) -> None:
        if self._listener is not None:
            self._listener.on_disconnect()
