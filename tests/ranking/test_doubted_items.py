"""After a lost connection all items are doubted: a request reads some, and says of the rest that they may be stale."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.features.store import Fetched
from app.ranking.degraded import STALE_ITEMS
from app.ranking.ranker import Ranker, Ranking
from app.ranking.request import RankRequest
from app.ranking.request_features import MAX_DOUBTED, FeatureReader
from app.registry.artifact.artifact import Artifact
from app.runtime.loop_pacer import SliceTurns
from tests.factories import raw_item, raw_items, raw_user
from tests.ranking.conftest import expected

pytestmark = pytest.mark.anyio

MANY = [str(number) for number in range(3 * MAX_DOUBTED)]
CHANGED = MANY[: MAX_DOUBTED + 10]


class CountingStore(MemoryFeatureStore):
    def __init__(self) -> None:
        super().__init__({"4": raw_user(4)}, raw_items(len(MANY)))
        self.asked: list[str] = []

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
        self.asked += item_ids
        return await super().fetch(user_id, item_ids, timeout_s)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def features(store: CountingStore) -> CountingStore:
    """What the ranker of the other tests reads."""
    return store


async def read(store: CountingStore, cache: ItemCache) -> tuple[list[str], list[str]]:
    """Return what a request of all items reads, and how its answer is degraded."""
    store.asked = []
    features = await FeatureReader(store, cache, 1.0, SliceTurns()).read("4", MANY, time.perf_counter() + 10)
    return store.asked, features.degraded


async def test_requests_read_some_each_until_all_are_fresh(
    ranker: Ranker, store: CountingStore, cache: ItemCache
) -> None:
    assert (await read(store, cache)) == (MANY, []), "what is not cached is read, however much"
    cache.on_disconnect()
    seen: list[str] = []
    for _ in range(2):
        asked, degraded = await read(store, cache)
        assert len(asked) == MAX_DOUBTED
        assert degraded == [STALE_ITEMS]
        seen += asked
    asked, degraded = await read(store, cache)
    assert degraded == []
    assert sorted(seen + asked) == sorted(MANY), "each once"
    assert (await read(store, cache)) == ([], [])


async def test_what_was_reported_as_changed_is_read_however_much_it_is(
    ranker: Ranker, store: CountingStore, cache: ItemCache
) -> None:
    await read(store, cache)
    cache.on_disconnect()
    cache.on_invalidate(CHANGED)
    asked, degraded = await read(store, cache)
    assert set(CHANGED) <= set(asked)
    assert len(asked) == len(CHANGED) + MAX_DOUBTED
    assert degraded == [STALE_ITEMS]


async def test_an_item_that_is_stale_does_not_become_doubted(
    store: CountingStore, cache: ItemCache, ranker: Ranker
) -> None:
    await read(store, cache)
    cache.on_invalidate(CHANGED)
    cache.on_disconnect()
    asked, _ = await read(store, cache)
    assert set(CHANGED) <= set(asked)


async def test_doubted_items_are_scored_as_they_were(
    ranker: Ranker, store: CountingStore, cache: ItemCache, versions: list[Artifact]
) -> None:
    async def ask() -> Ranking:
        return await ranker.rank(RankRequest("4", MANY), time.perf_counter() + 10)

    await ask()
    for item_id in MANY:
        store.items[item_id] = raw_item(int(item_id) + 1000)  # changed while nobody was told
    cache.on_disconnect()
    store.asked = []
    ranking = await ask()
    new = {item_id: raw_item(int(item_id) + 1000) for item_id in store.asked}
    items = {item_id: new.get(item_id, raw_item(int(item_id))) for item_id in MANY}
    assert ranking.degraded == [STALE_ITEMS]
    assert dict(zip(ranking.item_ids, ranking.scores.tolist(), strict=True)) == pytest.approx(
        expected(versions[0], "4", raw_user(4), items), abs=1e-5
    )
