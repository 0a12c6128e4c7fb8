"""`MemoryFeatureStore`: features inside the process, for tests and for users of this package as a library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from app.errors import StoreError
from app.features.store import Fetched, Listener, RawFeatures, StoreStatus


class MemoryFeatureStore:
    """A feature store of two dictionaries. The next request sees what `put_item` wrote, like a write to Redis.

    Set `failing` to make every fetch raise, as a store that is down does.
    """

    def __init__(
        self,
        users: Mapping[str, Mapping[str, Any]] | None = None,
        items: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        latency_s: float | None = None,
        tracking: bool = True,
    ) -> None:
        """
        Args:
            users, items: features by id.
            latency_s: seconds a fetch takes, half of them before it reads and half after; a fetch without latency
                returns at once and lets nothing else run.
            tracking: report changes to the listener; without that nothing may be cached.
        """
        self.users: dict[str, RawFeatures] = dict(users or {})
        self.items: dict[str, RawFeatures] = dict(items or {})
        self.fetches = 0
        """How many fetches have read something."""
        self._latency_s = latency_s
        self._tracking = tracking
        self._failing = False
        self._listener: Listener | None = None

    @property
    def failing(self) -> bool:
        """Whether every fetch raises; setting it disconnects the listener."""
        return self._failing

    @failing.setter
    def failing(self, value: bool) -> None:
        if value and self._listener is not None:
            self._listener.on_disconnect()
        self._failing = value

    def put_user(self, user_id: str, features: Mapping[str, Any]) -> None:
        """Replace the features of a user."""
        self.users[user_id] = dict(features)

    def put_item(self, item_id: str, features: Mapping[str, Any]) -> None:
        """Replace the features of an item; an empty mapping makes it unknown."""
        self.items[item_id] = dict(features)
        if self._tracking and self._listener is not None:
            self._listener.on_invalidate([item_id])

    async def start(self, listener: Listener) -> None:
        """Call the listener from now on."""
        self._listener = listener

    async def stop(self) -> None:
        """Call no listener any more."""
        self._listener = None

    def select_fields(self, user: Sequence[str], item: Sequence[str]) -> None:
        """Give all fields as before, which cost nothing here."""

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
        """Read a user and items; see `FeatureStore.fetch`. Raises StoreError if the store is failing."""
        if self._latency_s is not None:
            await asyncio.sleep(self._latency_s / 2)
        if self._failing:
            raise StoreError("this store was told to fail")
        self.fetches += 1
        user = {} if user_id is None else self.users.get(user_id, {})
        items = [self.items.get(item_id, {}) for item_id in item_ids]
        if item_ids and self._listener is not None:
            self._listener.on_items(item_ids, items)
        if self._latency_s is not None:
            await asyncio.sleep(self._latency_s / 2)
        return Fetched(user, items)

    async def scan(self) -> AsyncIterator[list[str]]:
        """Give all ids in one batch. Raises StoreError if the store is failing."""
        if self._failing:
            raise StoreError("this store was told to fail")
        yield list(self.items)

    @property
    def tracking(self) -> bool:
        """Whether changes are reported."""
        return self._tracking and not self._failing

    def status(self) -> StoreStatus:
        """Return a status that says whether the store is failing."""
        return StoreStatus(not self._failing, self.tracking, "in memory")
