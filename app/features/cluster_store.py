"""`ClusterFeatureStore`: raw features in a Redis or Valkey Cluster, read in one round trip to each node that is needed.

What one node does not give is None in what is fetched; the rest is served. The item cache stays exact: all masters
report changes, and what was read of a hash slot is trusted no longer once the slot has moved or its node was lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from app.errors import StoreError
from app.features.cluster_fetch import ELSEWHERE, ClusterFetch, hash_slot
from app.features.cluster_links import ClusterLinks
from app.features.cluster_topology import Address, ClusterTopology, node_name, node_url
from app.features.redis_client import connect_client
from app.features.redis_connect import Greeted
from app.features.redis_link import RedisLink
from app.features.redis_scan import scan_keys
from app.features.store import Fetched, Listener, StoreStatus
from app.features.stored_hashes import StoredHashes, untracked_effect
from app.redis_url import RedisUrl, parse_redis_url


class ClusterFeatureStore:
    """A feature store of several masters, with one connection to each that all requests share."""

    def __init__(
        self, url: str, user_key: str, item_key: str, *, timeout_s: float = 0.03, item_max_age_s: float | None = None
    ) -> None:
        """Connect nothing yet; arguments and errors are those of `RedisFeatureStore`."""
        self._url, self._timeout_s = parse_redis_url(url), timeout_s
        self._effect = untracked_effect(item_max_age_s)
        self._hashes = StoredHashes(user_key, item_key)
        self._listener: Listener | None = None
        topology = ClusterTopology(self._url, connect_client)
        self._links = ClusterLinks(topology, self._open_link, self._on_slots_lost)

    async def start(self, listener: Listener) -> None:
        """Connect, or keep trying in the background: a store that is down does not stop the service from starting."""
        self._listener = listener
        await self._links.start()

    async def stop(self) -> None:
        """Close all connections for good."""
        await self._links.stop()

    @property
    def tracking(self) -> bool:
        """Whether all masters that are connected report changes; the items of others are stale one by one."""
        connected = self._links.connected
        return bool(connected) and all(link.tracking for link in connected)

    def status(self) -> StoreStatus:
        """Return the state of the connections, with the reason where a node or a slot cannot be read."""
        links, connected = self._links, self._links.connected
        problems = links.problems()
        first = next((f"{node_name(address)}: {reason}" for address, reason in problems.items()), links.problem)
        if not connected:
            return StoreStatus(False, False, first)
        problem = ""
        if problems:
            problem = f"{len(problems)} of {len(links.masters)} masters cannot be read: {first}"
        elif links.unowned:
            problem = f"no node has {links.unowned} of the hash slots"
        words = [f"connected to {len(connected)} masters"]
        words += [link.detail for link in connected if not link.tracking][:1]
        words += [self._hashes.wrong_type] if self._hashes.wrong_type else []
        return StoreStatus(True, self.tracking, "; ".join(words), problem)

    def select_fields(self, user: Sequence[str], item: Sequence[str]) -> None:
        """Read these fields from now on; see `FeatureStore.select_fields`."""
        if self._hashes.select(user, item) and self._listener is not None:
            self._listener.on_invalidate(None)

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
        """Read a user and items, a pipeline to each node; see `FeatureStore.fetch`. Raises StoreError."""
        if user_id is None and not item_ids:
            return Fetched({}, ())
        fetch = ClusterFetch(self._links, self._hashes, self._listener)
        if user_id is not None:
            fetch.add_user(user_id)
        for item_id in item_ids:
            fetch.add_item(item_id)
        features = await fetch.run(timeout_s)
        return Fetched({}, features) if user_id is None else Fetched(features[0], features[1:])

    async def scan(self) -> AsyncIterator[list[str]]:
        """Iterate over the ids of all keys that fit the item template, node by node. Raises StoreError."""
        error: StoreError | None = None
        for address in self._links.masters:
            try:
                async for ids in scan_keys(self._links.link(address), self._hashes.item_key):
                    yield ids
            except StoreError as failure:  # the others' items are worth having
                error = failure
        if error is not None or not self._links.masters:
            raise error or StoreError(self._links.problem)

    def _open_link(self, address: Address) -> RedisLink:
        url = node_url(self._url, address)

        async def find() -> RedisUrl:
            return url

        def probe(greeted: Greeted | None) -> list[bytes]:
            return self._hashes.probe(1)

        return RedisLink(
            find,
            self._hashes.item_key.prefix,
            probe,
            timeout_s=self._timeout_s,
            untracked_effect=self._effect,
            tolerated=("WRONGTYPE", *ELSEWHERE),
            on_push=lambda push: self._on_push(address, push),
            on_lost=lambda: self._links.on_link_lost(address),
        )

    def _on_push(self, address: Address, push: list[Any]) -> None:
        """Tell the listener what has changed, and distrust a slot of which another node reports than has it."""
        if self._listener is None:
            return
        item_ids = self._hashes.changed_items(push)
        self._listener.on_invalidate(item_ids)
        slots = {hash_slot(self._hashes.item_key.key(item_id)) for item_id in item_ids or ()}
        if elsewhere := [slot for slot in slots if self._links.owner(slot) != address]:
            self._links.lose(elsewhere)

    def _on_slots_lost(self, slots: Sequence[int]) -> None:
        if self._listener is not None:
            self._listener.on_hash_slots_lost(slots)
