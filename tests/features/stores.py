"""Feature stores of the tests: connected, and read."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from app.features.item_cache import ItemCache
from app.features.redis_store import RedisFeatureStore


@contextlib.asynccontextmanager
async def connected(url: str, *, timeout_s: float = 5.0, **options: Any) -> AsyncIterator[RedisFeatureStore]:
    store = RedisFeatureStore(url, "user:{id}", "item:{id}", timeout_s=timeout_s, **options)
    store.select_fields(["age"], ["year"])
    await store.start(ItemCache(64))
    try:
        yield store
    finally:
        await store.stop()


async def reads(store: RedisFeatureStore) -> bool:
    return await store.fetch("1", ["1"], 5.0) == ({"age": "30"}, [{"year": "1990"}])
