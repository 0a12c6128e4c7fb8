"""Tests that requests in flight together, over a cache smaller than what they rank, get the scores they get alone.

Rows are evicted and given to other items while requests wait for the store, which is where a row number kept across an
`await` would turn into another item's.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import pytest
import redis
import redis.asyncio

from app.errors import StoreError
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.features.redis_store import RedisFeatureStore
from app.features.slots import Slots
from app.features.store import FeatureStore
from app.ranking.degraded import ITEMS_UNAVAILABLE, STALE_ITEMS, USER_UNAVAILABLE
from app.ranking.ranker import Ranker, Ranking
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LiveSnapshot
from tests.factories import raw_item, raw_items, raw_user, raw_users, redis_text
from tests.ranking.conftest import expected
from tests.ranking.explanations import effects_of, parts_of

pytestmark = pytest.mark.anyio

CACHED, CANDIDATES = 64, 32
USERS, ITEMS = 8, 400
ROUNDS = 3
IN_FLIGHT = (1, 2, 4, 8, 16, 32, 64)
UPDATED = [str(number) for number in range(20)]
YEARS = range(1931, 2011, 10)
HANDLED_WITHIN_S = 0.05
"""How long after the store has acknowledged a write its invalidation may still be on its way to the cache."""


class Catalogue(Protocol):
    """A store with the features of `raw_users` and `raw_items`, which can be written to."""

    store: FeatureStore

    async def write(self, item_id: str, raw: Mapping[str, Any]) -> None:
        """Replace an item's features; returns once the store has acknowledged it."""

    @property
    def fetches(self) -> int:
        """Return the number of round trips made."""


class MemoryCatalogue:
    def __init__(self) -> None:
        self.store = MemoryFeatureStore(raw_users(USERS), raw_items(ITEMS), latency_s=0.001)

    async def write(self, item_id: str, raw: Mapping[str, Any]) -> None:
        self.store.put_item(item_id, raw)

    @property
    def fetches(self) -> int:
        return self.store.fetches


class CountedStore(RedisFeatureStore):
    fetches = 0

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Any:
        self.fetches += 1
        return await super().fetch(user_id, item_ids, timeout_s)


class ValkeyCatalogue:
    def __init__(self, url: str, client: redis.Redis) -> None:
        self.store = CountedStore(url, "user:{id}", "item:{id}")
        self.store.select_fields(list(raw_user(0)), list(raw_item(0)))
        self.writer = redis.asyncio.Redis.from_url(url)
        with client.pipeline() as pipeline:
            for kind, entities in (("user", raw_users(USERS)), ("item", raw_items(ITEMS))):
                for entity_id, raw in entities.items():
                    pipeline.hset(f"{kind}:{entity_id}", mapping=redis_text(raw))
            pipeline.execute()

    async def write(self, item_id: str, raw: Mapping[str, Any]) -> None:
        await self.writer.hset(f"item:{item_id}", mapping=redis_text(raw))  # type: ignore[misc]
        await self.writer.ping()  # invalidations leave at the end of a turn of the server, this reply in a later one

    @property
    def fetches(self) -> int:
        return self.store.fetches


@pytest.fixture(params=["memory", "valkey"])
async def catalogue(request: pytest.FixtureRequest) -> AsyncIterator[Catalogue]:
    if request.param == "memory":
        yield MemoryCatalogue()
        return
    client = request.getfixturevalue("redis_client")
    valkey = ValkeyCatalogue(request.getfixturevalue("valkey_url"), client)
    yield valkey
    await valkey.store.stop()
    await valkey.writer.aclose()


@pytest.fixture
async def ranker(catalogue: Catalogue, versions: list[Artifact]) -> Ranker:
    cache = ItemCache(CACHED)
    await catalogue.store.start(cache)
    await cache.attach(versions[0])
    return Ranker(catalogue.store, cache, lambda: LiveSnapshot(stable=versions[0]), store_timeout_s=60.0)


@pytest.fixture(scope="module")
def reference(versions: list[Artifact]) -> dict[tuple[str, str], float]:
    """Return the scores by `forward` of every user with every item."""
    items = raw_items(ITEMS)
    slots = versions[0].item_encoder.encode_many(list(items.values()), list(items))
    scores = {}
    for user_id, raw in raw_users(USERS).items():
        user = versions[0].user_encoder.encode(raw, user_id)
        for item_id, score in zip(items, versions[0].score_by_forward(user, Slots(*slots)).tolist(), strict=True):
            scores[user_id, item_id] = score
    return scores


async def rank(ranker: Ranker, user_id: str, item_ids: Sequence[str], **options: Any) -> Ranking:
    return await ranker.rank(RankRequest(user_id, item_ids, **options), time.perf_counter() + 60.0)


@pytest.mark.parametrize("in_flight", IN_FLIGHT)
async def test_what_is_in_flight_beside_a_request_does_not_change_its_answer(
    in_flight: int, catalogue: Catalogue, ranker: Ranker, reference: dict[tuple[str, str], float]
) -> None:
    dice = random.Random(in_flight)
    wrong = missing = 0

    async def one(number: int) -> None:
        nonlocal wrong, missing
        user_id, unknown = str(dice.randrange(USERS)), f"unknown{number}"
        candidates = [*map(str, dice.sample(range(ITEMS), CANDIDATES)), unknown]
        ranking = await rank(ranker, user_id, candidates)
        assert ranking.degraded == []
        assert not ranking.missing_user
        assert sorted(ranking.item_ids) == sorted(candidates)
        for item_id, score in zip(ranking.item_ids, ranking.scores.tolist(), strict=True):
            wrong += item_id != unknown and abs(score - reference[user_id, item_id]) > 1e-5
        missing += len(set(ranking.missing_items) ^ {unknown})

    async def client(numbers: Sequence[int]) -> None:
        for number in numbers:
            await one(number)

    numbers = range(ROUNDS * in_flight)
    await asyncio.gather(*(client(numbers[first::in_flight]) for first in range(in_flight)))
    compared = len(numbers) * CANDIDATES
    assert (wrong, missing) == (0, 0), (
        f"{wrong} of {compared} scores are wrong, {missing} items are wrongly called missing or not"
    )
    assert catalogue.fetches == len(numbers), "one round trip a request"


@pytest.mark.parametrize("in_flight", [1, 8, 32])
async def test_items_written_meanwhile_are_scored_as_they_are_or_were_when_the_request_began(
    in_flight: int, catalogue: Catalogue, ranker: Ranker, versions: list[Artifact]
) -> None:
    written = itertools.cycle(YEARS)
    history: dict[str, list[tuple[float, int]]] = {item_id: [] for item_id in UPDATED}
    """When each write was acknowledged, and its year."""
    by_year = {
        year: scores_of(versions[0], {item_id: raw_item(int(item_id)) | {"year": year} for item_id in UPDATED})
        for year in YEARS
    }
    dice = random.Random(in_flight)
    requests, finished = 0, asyncio.Event()

    async def write(item_id: str) -> None:
        year = next(written)
        history[item_id].append((float("inf"), year))
        await catalogue.write(item_id, raw_item(int(item_id)) | {"year": year})
        history[item_id][-1] = (time.perf_counter(), year)

    async def keep_writing() -> None:
        while not finished.is_set():
            await write(dice.choice(UPDATED))
            await asyncio.sleep(0.0005)

    async def client() -> None:
        nonlocal requests
        for _ in range(ROUNDS * 4):
            began = time.perf_counter()
            others = [str(number) for number in dice.sample(range(len(UPDATED), ITEMS), CANDIDATES - 10)]
            ranking = await rank(ranker, "4", [*dice.sample(UPDATED, 10), *others])
            requests += 1
            assert ranking.degraded == []
            assert ranking.missing_items == []
            for item_id, score in zip(ranking.item_ids, ranking.scores.tolist(), strict=True):
                if item_id not in history:
                    continue
                writes = history[item_id]
                current = max(
                    n for n, (at, _) in enumerate(writes) if at <= max(began - HANDLED_WITHIN_S, writes[0][0])
                )
                scores = [by_year[year][item_id] for _, year in writes[current:]]
                assert any(abs(score - possible) <= 1e-5 for possible in scores), (item_id, score, scores)

    for item_id in UPDATED:
        await write(item_id)
    writer = asyncio.create_task(keep_writing())
    await asyncio.gather(*(client() for _ in range(in_flight)))
    assert not writer.done()
    finished.set()
    await writer
    assert sum(map(len, history.values())) > len(UPDATED), "some were written meanwhile"
    assert catalogue.fetches == requests, "one round trip, whatever is written meanwhile"


async def test_candidates_that_the_cache_has_no_room_for_are_scored_and_explained_from_what_was_read(
    catalogue: Catalogue, ranker: Ranker, reference: dict[tuple[str, str], float], versions: list[Artifact]
) -> None:
    candidates = [str(number) for number in range(3 * CACHED)]
    roomy = ItemCache(ITEMS)
    features = MemoryFeatureStore(raw_users(USERS), raw_items(ITEMS))
    await features.start(roomy)
    await roomy.attach(versions[0])
    other = Ranker(features, roomy, lambda: LiveSnapshot(stable=versions[0]), store_timeout_s=60.0)
    for _ in range(2):
        options = {"explain": True, "item_features": {"0": {"year": 1930}, "190": {"year": 1931}}}
        answer, reference_answer = [
            await rank(one, "3", [*candidates, "unknown"], **options) for one in (ranker, other)
        ]
        assert answer.item_ids == reference_answer.item_ids
        assert answer.scores == pytest.approx(reference_answer.scores, abs=1e-5)
        assert answer.missing_items == ["unknown"]
        for one, other_one in zip(answer.explanations, reference_answer.explanations, strict=True):
            for which in (parts_of, effects_of):
                assert which(one) == pytest.approx(which(other_one), abs=1e-4)
        assert scores(await rank(ranker, "3", candidates)) == pytest.approx(
            {item_id: reference["3", item_id] for item_id in candidates}, abs=1e-5
        )


class Waiting:
    """A ranker over a store in memory whose fetches take 20 ms."""

    def __init__(self, artifact: Artifact, cached: int = CACHED, **options: Any) -> None:
        self.artifact = artifact
        self.live = LiveSnapshot(stable=artifact)
        self.features = MemoryFeatureStore(raw_users(USERS), raw_items(ITEMS), latency_s=0.02, **options)
        self.cache = ItemCache(cached)
        self.ranker = Ranker(self.features, self.cache, lambda: self.live, store_timeout_s=60.0)

    async def start(self, *cached: str) -> None:
        await self.features.start(self.cache)
        await self.cache.attach(self.artifact)
        if cached:
            await self.rank(*cached)

    async def rank(self, *item_ids: str) -> Ranking:
        return await rank(self.ranker, "4", item_ids)

    async def begin(self, *item_ids: str) -> asyncio.Task[Ranking]:
        """Begin a request that waits for the store."""
        task = asyncio.create_task(self.rank(*item_ids))
        await asyncio.sleep(0)
        return task


def scores(ranking: Ranking) -> dict[str, float]:
    return dict(zip(ranking.item_ids, ranking.scores.tolist(), strict=True))


async def test_an_item_invalidated_while_a_request_waits_is_not_read_again_for_it(versions: list[Artifact]) -> None:
    waiting = Waiting(versions[0])
    await waiting.start("1", "2")
    request = await waiting.begin("1", "2")
    waiting.features.put_item("2", raw_item(2) | {"year": 1931})
    ranking = await request
    assert ranking.degraded == []
    assert scores(ranking) == pytest.approx(scores_of(versions[0], {"1": raw_item(1), "2": raw_item(2)}), abs=1e-5)
    assert waiting.features.fetches == 2
    following = scores_of(versions[0], {"2": raw_item(2) | {"year": 1931}})
    assert scores(await waiting.rank("2")) == pytest.approx(following, abs=1e-5), "the next request sees the write"


async def test_an_item_that_was_deleted_is_missing_and_scored_from_defaults(versions: list[Artifact]) -> None:
    for tracking in (True, False):
        waiting = Waiting(versions[0], tracking=tracking)
        await waiting.start("1", "2")
        waiting.features.put_item("2", {})
        ranking = await waiting.rank("1", "2")
        assert ranking.missing_items == ["2"]
        assert scores(ranking) == pytest.approx(scores_of(versions[0], {"1": raw_item(1), "2": {}}), abs=1e-5)


async def test_a_hit_keeps_its_row_while_others_fill_the_cache_and_the_store_fails(versions: list[Artifact]) -> None:
    waiting = Waiting(versions[0], cached=8)
    await waiting.start("1", "2")
    request = await waiting.begin("1", "2", "3")
    waiting.cache.on_items([str(number) for number in range(100, 120)], [raw_item(n) for n in range(100, 120)])
    assert len(waiting.cache) == 8
    waiting.features.failing = True
    ranking = await request
    assert set(ranking.degraded) == {USER_UNAVAILABLE, ITEMS_UNAVAILABLE, STALE_ITEMS}
    assert ranking.missing_items == []
    items: dict[str, Mapping[str, Any]] = {"1": raw_item(1), "2": raw_item(2), "3": {}}
    assert scores(ranking) == pytest.approx(expected(versions[0], "4", {}, items), abs=1e-5)


async def test_where_the_store_reports_no_changes_items_are_read_by_each_request(versions: list[Artifact]) -> None:
    waiting = Waiting(versions[0], tracking=False)
    await waiting.start("1", "2")
    waiting.features.put_item("2", raw_item(2) | {"year": 1931})
    expected_scores = scores_of(versions[0], {"1": raw_item(1), "2": raw_item(2) | {"year": 1931}})
    assert scores(await waiting.rank("1", "2")) == pytest.approx(expected_scores, abs=1e-5)
    assert waiting.features.fetches == 2


async def test_what_is_cached_is_stale_where_the_store_reports_no_changes_and_is_late(versions: list[Artifact]) -> None:
    class Late(MemoryFeatureStore):
        async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Any:
            raise StoreError("no answer in time")

    waiting = Waiting(versions[0], tracking=False)
    await waiting.start("1")
    late = Ranker(Late(tracking=False), waiting.cache, lambda: waiting.live, store_timeout_s=1.0)
    assert set((await rank(late, "4", ["1"])).degraded) == {USER_UNAVAILABLE, STALE_ITEMS}


async def test_a_request_that_outlives_its_version_is_answered_by_the_next(versions: list[Artifact]) -> None:
    waiting = Waiting(versions[0])
    await waiting.start("1", "2")
    request = await waiting.begin("1", "2")
    await waiting.cache.attach(versions[1])
    waiting.live = LiveSnapshot(stable=versions[1])
    waiting.cache.detach(versions[0])
    ranking = await request
    assert ranking.artifact is versions[1]
    assert scores(ranking) == pytest.approx(scores_of(versions[1], {"1": raw_item(1), "2": raw_item(2)}), abs=1e-5)
    assert ranking.degraded == []


async def test_a_cancelled_request_pins_nothing(versions: list[Artifact]) -> None:
    waiting = Waiting(versions[0], cached=4)
    await waiting.start("1", "2", "3", "4")
    request = await waiting.begin("1", "2", "3", "4")
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    waiting.cache.on_items(["7", "8", "9", "10"], [raw_item(n) for n in (7, 8, 9, 10)])
    assert all(item_id in waiting.cache for item_id in ("7", "8", "9", "10"))


def scores_of(artifact: Artifact, items: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the scores by `forward` of user 4."""
    return expected(artifact, "4", raw_user(4), items)
