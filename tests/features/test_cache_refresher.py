"""What reads items in the background must not undo what requests did while it waited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from app.errors import StoreError
from app.features import cache_refresher
from app.features.cache_refresher import BATCH, CacheRefresher
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.features.row_flags import FRESH
from app.features.store import Fetched
from tests.factories import raw_item, raw_items
from tests.waiting import async_until

pytestmark = pytest.mark.anyio

ITEMS = 4 * BATCH
IDS = [str(number) for number in range(ITEMS)]


class RecordingStore(MemoryFeatureStore):
    def __init__(self) -> None:
        super().__init__({}, raw_items(ITEMS), latency_s=0.002)
        self.read: list[str] = []

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
        fetched = await super().fetch(user_id, item_ids, timeout_s)
        self.read += item_ids
        return fetched


@pytest.fixture
def store() -> RecordingStore:
    return RecordingStore()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - in the turn of the loop in which it comes true
        await asyncio.sleep(0)


async def test_it_fills_the_cache_and_reads_again_what_was_written(store: RecordingStore) -> None:
    cache = ItemCache(2 * ITEMS)
    await store.start(cache)
    refresher = CacheRefresher(store, cache, fill=True)
    refresher.start()
    await until(lambda: refresher.filled)
    assert sorted(store.read) == sorted(IDS)
    store.put_item("3", raw_item(4))
    assert cache.stale() == ["3"]
    await until(lambda: "3" in store.read[ITEMS:])
    assert cache.stale() == []
    await refresher.stop()


async def test_what_is_written_is_read_at_once_and_together(
    store: RecordingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ItemCache(2 * ITEMS)
    await store.start(cache)
    cache.on_items(IDS, [raw_item(number) for number in range(ITEMS)])
    refresher = CacheRefresher(store, cache, fill=False)
    monkeypatch.setattr(cache_refresher, "POLL_S", 1000.0)
    refresher.start()
    await async_until(lambda: len(store.read) == cache_refresher.MIN_ROUND)  # those that poll sleep now
    store.read.clear()
    store.fetches = 0
    for number in range(5):
        store.put_item(str(number), raw_item(number + 1))
    store.put_item("never cached", raw_item(1))
    await async_until(lambda: len(store.read) == 5)
    assert (sorted(store.read), store.fetches) == (IDS[:5], 1)
    assert not any(cache.is_stale(item_id) for item_id in IDS[:5])
    await refresher.stop()


async def test_an_item_that_is_in_doubt_whenever_it_is_read_is_not_read_all_the_time() -> None:
    class Doubtful(RecordingStore):
        async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
            fetched = await super().fetch(user_id, item_ids, timeout_s)
            cache.on_invalidate(item_ids)  # as while a cluster moves them
            return fetched

    doubtful, cache = Doubtful(), ItemCache(2 * ITEMS)
    await doubtful.start(cache)
    cache.on_items(["1"], [raw_item(1)])
    refresher = CacheRefresher(doubtful, cache, fill=False)
    refresher.start()
    doubtful.put_item("1", raw_item(2))
    await asyncio.sleep(1.0)
    assert 1 <= len(doubtful.read) <= 10
    await refresher.stop()


async def test_a_change_that_is_not_reported_is_found_and_makes_all_items_stale(store: RecordingStore) -> None:
    cache = ItemCache(2 * ITEMS)
    await store.start(cache)
    refresher = CacheRefresher(store, cache, fill=True)
    refresher.start()
    await until(lambda: refresher.filled)
    store.items = {item_id: raw_item(int(item_id) + 1) for item_id in IDS}  # as SWAPDB does
    invalidated = cache.counts.invalidations
    await until(lambda: cache.counts.invalidations > invalidated)
    assert cache.counts.invalidations - invalidated == ITEMS
    await until(lambda: cache.stale() == [])
    assert not cache.missed_reports()
    await refresher.stop()


async def test_no_item_is_fresh_for_longer_than_the_limit_whether_or_not_it_can_be_read_again(
    store: RecordingStore,
) -> None:
    cache = ItemCache(2 * ITEMS)
    await store.start(cache)
    refresher = CacheRefresher(store, cache, fill=True, max_age_s=0.5)
    refresher.start()
    await until(lambda: refresher.filled)
    await until(lambda: set(store.read[ITEMS:]) == set(IDS))
    await store.stop()  # what is read reaches the cache no more
    await async_until(lambda: sorted(cache.stale()) == sorted(IDS))
    await refresher.stop()


async def test_a_store_that_refuses_to_list_its_items_does_not_keep_what_is_stale_from_being_read() -> None:
    class Unlisted(RecordingStore):
        scans = 0

        async def scan(self) -> AsyncIterator[list[str]]:
            self.scans += 1
            raise StoreError("NOPERM")
            yield []

    unlisted = Unlisted()
    cache = ItemCache(2 * ITEMS)
    await unlisted.start(cache)
    cache.on_items(["1"], [raw_item(1)])
    unlisted.put_item("1", raw_item(2))
    refresher = CacheRefresher(unlisted, cache, fill=True)
    refresher.start()
    await until(lambda: cache.stale() == [])
    await asyncio.sleep(1.0)
    assert 1 <= unlisted.scans <= 3, "less and less often"
    await refresher.stop()


async def test_filling_evicts_nothing_that_requests_cache_meanwhile(store: RecordingStore) -> None:
    cache = ItemCache(2 * BATCH)
    await store.start(cache)
    refresher = CacheRefresher(store, cache, fill=True)
    refresher.start()
    await until(lambda: bool(store.read))
    others = [f"other{number}" for number in range(BATCH // 2)]
    cache.on_items(others, [raw_item(0)] * len(others))
    await until(lambda: refresher.filled)
    await refresher.stop()
    assert cache.counts.evictions == 0
    assert len(cache) == cache.capacity
    assert all(item_id in cache for item_id in others)


async def test_items_evicted_or_read_since_they_were_found_stale_are_passed_over(store: RecordingStore) -> None:
    cache = ItemCache(2 * BATCH)
    await store.start(cache)
    cache.on_items(IDS[: 2 * BATCH], [raw_item(0)] * (2 * BATCH))
    cache.on_disconnect()
    stale = cache.stale()
    assert stale == IDS[: 2 * BATCH]
    refreshing = asyncio.create_task(CacheRefresher(store, cache, fill=False).refresh(stale))
    await until(lambda: bool(store.read))
    read_meanwhile = stale[-1]
    cache.on_items([read_meanwhile], [raw_item(1)])
    cache.pin(cache.find(stale[:BATCH]).rows)
    cache.on_items(["new"], [raw_item(2)])
    evicted = [item_id for item_id in stale if item_id not in cache]
    assert evicted
    await refreshing
    assert set(store.read) == set(stale) - set(evicted) - {read_meanwhile}
    assert not any(item_id in cache for item_id in evicted)
    assert cache.find([item_id for item_id in stale if item_id in cache]).flags_all & FRESH
