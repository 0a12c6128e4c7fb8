"""A store of several nodes, of which some do not answer: what the others give is used, and the rest is named."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.features.store import Fetched
from app.ranking.ranker import Ranker, Ranking
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LiveSnapshot
from tests.factories import raw_items, raw_users
from tests.ranking.conftest import expected

pytestmark = pytest.mark.anyio
ASKED = ["1", "2", "3", "4", "unknown"]


class PartialStore(MemoryFeatureStore):
    """A store whose users and items in `lost` are on nodes that do not answer."""

    def __init__(self) -> None:
        super().__init__(raw_users(), raw_items())
        self.lost: set[str] = set()

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
        there = [item_id for item_id in item_ids if f"item {item_id}" not in self.lost]
        user, items = await super().fetch(user_id, there, timeout_s)
        read = dict(zip(there, items, strict=True))
        return Fetched(None if f"user {user_id}" in self.lost else user, [read.get(item_id) for item_id in item_ids])


async def test_what_could_not_be_read_is_named_and_the_rest_is_live(versions: list[Artifact]) -> None:
    store, cache = PartialStore(), ItemCache(64)
    await store.start(cache)
    await cache.attach(versions[0])
    ranker = Ranker(store, cache, lambda: LiveSnapshot(stable=versions[0]), store_timeout_s=60.0)
    user, items = raw_users()["4"], raw_items()

    async def rank() -> Ranking:
        return await ranker.rank(RankRequest(user_id="4", item_ids=ASKED), time.perf_counter() + 60.0)

    async def check(degraded: list[str], missing: list[str], known: Sequence[str], has_user: bool = True) -> None:
        ranking = await rank()
        assert sorted(ranking.degraded) == sorted(degraded)
        assert ranking.missing_items == missing
        assert not ranking.missing_user
        scores = dict(zip(ranking.item_ids, ranking.scores.tolist(), strict=True))
        raw = {item_id: items[item_id] if item_id in known else {} for item_id in ASKED}
        assert scores == pytest.approx(expected(versions[0], "4", user if has_user else {}, raw), abs=1e-5)

    store.lost = {"item 2", "item 3", "item unknown"}
    await check(["item_features_unavailable"], [], ["1", "4"])
    store.lost = {"item 2"}
    await check(["item_features_unavailable"], ["unknown"], ["1", "3", "4"])
    store.lost = set()
    await check([], ["unknown"], ASKED[:4])
    cache.on_invalidate(["2", "unknown"])
    store.lost = {"item 2", "item unknown", "user 4"}
    await check(["stale_item_features", "user_features_unavailable"], ["unknown"], ASKED[:4], has_user=False)
