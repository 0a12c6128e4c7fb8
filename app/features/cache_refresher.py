"""`CacheRefresher`: keeps the item cache full and fresh in the background, so that requests seldom have to read items.

At the start it reads the store's items, up to the cache's capacity. Afterwards it reads again what was invalidated, and
after a lost connection everything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from app.errors import StoreError
from app.features.item_cache import ItemCache
from app.features.store import FeatureStore

log = structlog.get_logger(__name__)

BATCH = 32
"""Items read and encoded at a time: less than a millisecond, so that a request behind it hardly waits."""
FETCH_TIMEOUT_S = 2.0
POLL_S = 0.25
BUSY_SHARE = 0.3
"""Share of the time that refreshing may keep the event loop and the store busy."""


class CacheRefresher:
    """A task beside the requests. It relies on the store to deliver to the cache what it reads."""

    def __init__(self, store: FeatureStore, cache: ItemCache, *, fill: bool) -> None:
        """
        Args:
            fill: read the store's items once it is connected.
        """
        self._store = store
        self._cache = cache
        self._filled = not fill
        self._task: asyncio.Task[None] | None = None

    @property
    def filled(self) -> bool:
        """Whether the first read of the store's items is done, or there was to be none."""
        return self._filled

    def start(self) -> None:
        """Begin to refresh in the background."""
        self._task = asyncio.create_task(self._run(), name="item-cache-refresher")

    async def stop(self) -> None:
        """End the background task."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def refresh(self, item_ids: Sequence[str]) -> None:
        """Read items that are cached and stale, a batch at a time; pass over those evicted or read meanwhile.

        Raises StoreError.
        """
        for start in range(0, len(item_ids), BATCH):
            await self._read([i for i in item_ids[start : start + BATCH] if self._cache.is_stale(i)])

    async def _run(self) -> None:
        while True:
            try:
                if self._store.status().tracking:
                    if not self._filled:
                        await self._fill()
                    await self.refresh(self._cache.stale())
            except StoreError as error:
                log.debug("item_refresh_interrupted", reason=str(error))
            except Exception:  # a dead refresher would leave every request to read for itself
                log.exception("item_refresh_failed")
            await asyncio.sleep(POLL_S)

    async def _fill(self) -> None:
        async for item_ids in self._store.scan():
            for start in range(0, len(item_ids), BATCH):
                # Requests cache items, too, while this waits for the store.
                vacant = self._cache.capacity - len(self._cache)
                new = [item_id for item_id in item_ids[start : start + BATCH] if item_id not in self._cache]
                await self._read(new[:vacant])
                if len(new) > vacant:
                    log.warning("item_cache_full", capacity=self._cache.capacity, hint="raise CTR_ITEM_CACHE_SIZE")
                    self._end_fill()
                    return
        self._end_fill()

    def _end_fill(self) -> None:
        self._filled = True
        log.info("item_cache_filled", items=len(self._cache))

    async def _read(self, item_ids: Sequence[str]) -> None:
        if not item_ids:
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._store.fetch(None, item_ids, FETCH_TIMEOUT_S)
        await asyncio.sleep((loop.time() - began) * (1 / BUSY_SHARE - 1))
