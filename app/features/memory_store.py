"""A feature store inside the process, for tests and for users of this package as a library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from app.errors import StoreError
from app.features.store import Fetched, Listener, RawFeatures, StoreStatus


class MemoryFeatureStore:
    """Features in two dictionaries. `put_item` is seen by the next request, like a write to Redis.

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
            latency_s: seconds a fetch takes, half of them before it reads and half after; None returns at once,
                without letting anything else run.
            tracking: report changes to the listener; otherwise nothing may be cached.
        """
        self.users: dict[str, RawFeatures] = dict(users or {})
        self.items: dict[str, RawFeatures] = dict(items or {})
        self.fetches = 0
        self._latency_s = latency_s
        self._tracking = tracking
        self._failing = False
        self._listener: Listener | None = None

    @property
    def failing(self) -> bool:
        return self._failing

    @failing.setter
    def failing(self, value: bool) -> None:
        if value and self._listener is not None:
            self._listener.on_disconnect()
        self._failing = value

    def put_user(self, user_id: str, raw: Mapping[str, Any]) -> None:
        self.users[user_id] = dict(raw)

    def put_item(self, item_id: str, raw: Mapping[str, Any]) -> None:
        self.items[item_id] = dict(raw)
        if self._tracking and self._listener is not None:
            self._listener.on_invalidate([item_id])

    async def start(self, listener: Listener) -> None:
        self._listener = listener

    async def stop(self) -> None:
        self._listener = None

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
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
        if self._failing:
            raise StoreError("this store was told to fail")
        yield list(self.items)

    @property
    def tracking(self) -> bool:
        return self._tracking and not self._failing

    def status(self) -> StoreStatus:
        return StoreStatus(not self._failing, self.tracking, "in memory")
