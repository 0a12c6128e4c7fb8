"""Keeps the item cache full and fresh behind the requests' backs, at a bounded pace.

At start it reads the store's items, up to the cache's capacity; afterwards it reads again what was invalidated and what
a lost connection made suspect, so that requests seldom pay for it.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from app.errors import StoreError
from app.features.item_cache import ItemCache
from app.features.store import FeatureStore

log = structlog.get_logger(__name__)

BATCH = 32
"""Items read and encoded at a time: less than a millisecond, so that a request behind it hardly waits."""
FETCH_TIMEOUT_S = 2.0
LOOK_EVERY_S = 0.25
BUSY_SHARE = 0.3
"""Share of the time that refreshing may keep the event loop and the store busy."""


class CacheRefresher:
    def __init__(self, store: FeatureStore, cache: ItemCache, *, fill: bool) -> None:
        self._store = store
        self._cache = cache
        self._filled = not fill
        self._task: asyncio.Task[None] | None = None

    @property
    def filled(self) -> bool:
        """The first read of the store's items is done, or was not asked for."""
        return self._filled

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="item-cache-refresher")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                if self._store.status().tracking:
                    if not self._filled:
                        await self._fill()
                    await self.fetch(self._cache.stale())
            except StoreError as error:
                log.debug("item_refresh_interrupted", reason=str(error))
            except Exception:  # a dead refresher would leave every request to refetch for itself
                log.exception("item_refresh_failed")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _fill(self) -> None:
        async for item_ids in self._store.scan():
            room = self._cache.capacity - len(self._cache)
            if room <= 0:
                log.warning("item_cache_full", capacity=self._cache.capacity, hint="raise CTR_ITEM_CACHE_SIZE")
                break
            await self.fetch([item_id for item_id in item_ids if item_id not in self._cache][:room])
        self._filled = True
        log.info("item_cache_filled", items=len(self._cache))

    async def fetch(self, item_ids: list[str]) -> None:
        """Read these items into the cache, a batch at a time. Raises StoreError."""
        loop = asyncio.get_running_loop()
        for start in range(0, len(item_ids), BATCH):
            began = loop.time()
            await self._store.fetch(None, item_ids[start : start + BATCH], FETCH_TIMEOUT_S)
            await asyncio.sleep((loop.time() - began) * (1 / BUSY_SHARE - 1))
