"""A feature store inside the process, for tests and for users of this package as a library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from app.errors import StoreError
from app.features.store import Listener, Raw, StoreStatus


class MemoryFeatureStore:
    """Features in two dictionaries. `put_item` is seen by the next request, like a write to Redis.

    Set `failing` to make every fetch raise, as a store that is down does.
    """

    def __init__(
        self,
        users: Mapping[str, Mapping[str, Any]] | None = None,
        items: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.users: dict[str, Raw] = dict(users or {})
        self.items: dict[str, Raw] = dict(items or {})
        self.fetches = 0
        self._failing = False
        self._listener: Listener | None = None

    @property
    def failing(self) -> bool:
        return self._failing

    @failing.setter
    def failing(self, value: bool) -> None:
        if value and self._listener is not None:
            self._listener.suspect()
        self._failing = value

    def put_user(self, user_id: str, raw: Mapping[str, Any]) -> None:
        self.users[user_id] = dict(raw)

    def put_item(self, item_id: str, raw: Mapping[str, Any]) -> None:
        self.items[item_id] = dict(raw)
        if self._listener is not None:
            self._listener.changed([item_id])

    async def start(self, listener: Listener) -> None:
        self._listener = listener

    async def stop(self) -> None:
        self._listener = None

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Raw:
        if self._failing:
            raise StoreError("this store was told to fail")
        self.fetches += 1
        if item_ids and self._listener is not None:
            self._listener.fetched(item_ids, [self.items.get(item_id, {}) for item_id in item_ids])
        return {} if user_id is None else self.users.get(user_id, {})

    async def scan(self) -> AsyncIterator[list[str]]:
        if self._failing:
            raise StoreError("this store was told to fail")
        yield list(self.items)

    @property
    def tracking(self) -> bool:
        return not self._failing

    def status(self) -> StoreStatus:
        return StoreStatus(not self._failing, not self._failing, "in memory")
