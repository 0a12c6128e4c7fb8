"""`CacheRefresher`: keeps the item cache full and fresh in the background, so that requests seldom have to read items.

At the start it reads the store's items, up to the cache's capacity. Afterwards it reads again what was written, at
once, and after a lost connection everything. It also goes round through the fresh items and reads them again before
they get too old: a store does not report every change. One that has changed without a report makes all items stale.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator, Sequence

import structlog

from app.errors import StoreError
from app.features.item_cache import ItemCache
from app.features.store import FeatureStore

log = structlog.get_logger(__name__)

BATCH = 32
"""Items read and encoded at a time: less than a millisecond, so that a request behind it hardly waits."""
FETCH_TIMEOUT_S = 2.0
POLL_S = 0.25
GATHER_S = 0.005
"""How long written items are gathered before they are read again. Each reading takes the event loop a quarter of a
millisecond, however few they are, and a request that comes before it reads for itself."""
BUSY_SHARE = 0.3
"""Share of the time that reading stale items may keep the event loop and the store busy, and filling the cache or
reading fresh ones again beside it."""
MIN_ROUND = 16
"""Fresh items read again each time at least, so that a few thousand items are gone through in a minute."""
AGE_SHARE = 0.7
"""Share of the greatest age in which all fresh items are read again."""
WARN_EVERY_S = 60.0
FILL_RETRY_FIRST_S, FILL_RETRY_LONGEST_S = 0.25, 60.0


class CacheRefresher:
    """A task beside the requests. It relies on the store to deliver to the cache what it reads."""

    def __init__(self, store: FeatureStore, cache: ItemCache, *, fill: bool, max_age_s: float | None = None) -> None:
        """
        Args:
            fill: read the store's items once it is connected.
            max_age_s: an item that was read longer ago is stale; None sets no limit.
        """
        self._store = store
        self._cache = cache
        self._filled = not fill
        self._max_age_s = max_age_s
        self._fill_due, self._fill_retry_s = 0.0, FILL_RETRY_FIRST_S
        self._warn_due = 0.0
        self._written: set[str] = set()
        """Items that the store has reported as written, and that are not read again yet."""
        self._any_written = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        """Held while a batch of stale items is read, so that `_run` and `_reread_written` take BUSY_SHARE together."""
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def filled(self) -> bool:
        """Whether the first read of the store's items is done, or there was to be none."""
        return self._filled

    def start(self) -> None:
        """Begin to refresh in the background."""
        self._cache.on_written = self._on_written
        self._tasks = [
            asyncio.create_task(self._run(), name="item-cache-refresher"),
            asyncio.create_task(self._reread_written(), name="item-cache-written"),
            asyncio.create_task(self._reread_fresh(), name="item-cache-rereader"),
            asyncio.create_task(self._mark_stale(), name="item-cache-ages"),
        ]

    async def stop(self) -> None:
        """End the background tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def refresh(self, item_ids: Sequence[str]) -> None:
        """Read items that are cached and stale, a batch at a time; pass over those evicted or read meanwhile.

        Raises StoreError.
        """
        for start in range(0, len(item_ids), BATCH):
            async with self._one_at_a_time:
                await self._read([i for i in item_ids[start : start + BATCH] if self._cache.is_stale(i)])

    async def _run(self) -> None:
        """Fill the cache, and read again what is stale."""
        while True:
            with self._logging_errors():
                if self._may_cache:
                    await self._try_fill()
                    await self.refresh(self._cache.stale())
            await asyncio.sleep(POLL_S)

    def _on_written(self, item_ids: Sequence[str]) -> None:
        self._written.update(item_ids)
        self._any_written.set()

    async def _reread_written(self) -> None:
        """Read written items again soon, so that few requests have to; what fails is stale, and left to `_run`."""
        while True:
            await self._any_written.wait()
            await asyncio.sleep(GATHER_S)
            self._any_written.clear()
            written, self._written = list(self._written), set()
            with self._logging_errors():
                await self.refresh(written)
            # Of some the reply is in doubt, as while a cluster moves them; `_run` reads those, a few times a second.
            self._written.difference_update(written)

    async def _reread_fresh(self) -> None:
        """Read fresh items again in turn, beside what may take long."""
        while True:
            with self._logging_errors():
                if self._may_cache:
                    await self._read_next()
            await asyncio.sleep(POLL_S)

    @property
    def _may_cache(self) -> bool:
        return self._store.tracking or (self._cache.aged and self._store.status().connected)

    @contextlib.contextmanager
    def _logging_errors(self) -> Iterator[None]:
        """Log an error and go on: a dead refresher would leave every request to read for itself."""
        try:
            yield
        except StoreError as error:
            log.debug("item_refresh_interrupted", reason=str(error))
        except Exception:
            log.exception("item_refresh_failed")

    async def _mark_stale(self) -> None:
        """Mark old items as stale, also while the store hangs, and all items where a report was missed."""
        while True:
            await asyncio.sleep(POLL_S)
            with self._logging_errors():
                if self._max_age_s is not None:
                    self._cache.expire(self._max_age_s)
                if self._cache.missed_reports():
                    self._on_missed_reports()

    def _on_missed_reports(self) -> None:
        if not self._store.tracking:  # none were to be expected
            self._cache.forget_changes()
            return
        if (now := asyncio.get_running_loop().time()) > self._warn_due:
            self._warn_due = now + WARN_EVERY_S
            log.warning(
                "item_changes_not_reported",
                effect="all cached items are read again",
                hint="SWAPDB is not reported, and some proxies report nothing: docs/redis.md",
            )
        self._cache.on_disconnect()

    async def _read_next(self) -> None:
        """Read the next fresh items again."""
        count = MIN_ROUND
        if self._max_age_s is not None:
            count = max(count, math.ceil(len(self._cache) * POLL_S / (AGE_SHARE * self._max_age_s)))
        ids = self._cache.next_fresh(count)
        for start in range(0, len(ids), BATCH):
            await self._read(ids[start : start + BATCH])

    async def _try_fill(self) -> None:
        """Read the store's items, unless that is done, or has failed a moment ago."""
        now = asyncio.get_running_loop().time()
        if self._filled or now < self._fill_due:
            return
        try:
            await self._fill()
        except StoreError as error:  # a store may refuse SCAN for good
            log.debug("item_cache_fill_interrupted", reason=str(error))
            self._fill_due = now + self._fill_retry_s
            self._fill_retry_s = min(2 * self._fill_retry_s, FILL_RETRY_LONGEST_S)

    async def _fill(self) -> None:
        async for item_ids in self._store.scan():
            for start in range(0, len(item_ids), BATCH):
                # Requests cache items, too, while this waits for the store.
                vacant = self._cache.vacant
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
