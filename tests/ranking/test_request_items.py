"""Tests of requests that compute item states of their own, and of others beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from app.errors import DeadlinePassed, StoreError
from app.events.event_queue import EventQueue
from app.events.item_references import ItemReferences
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.ranking.degraded import STALE_ITEMS, USER_UNAVAILABLE
from app.ranking.explain import ITEM_SLICES, MAX_EXPLAINED, Explainer
from app.ranking.ranker import Ranker, Ranking
from app.ranking.request import RankRequest
from app.ranking.request_features import READ_AT_ONCE
from app.ranking.request_items import COPIED_AT_ONCE, SLICE, RequestItems
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.runtime.loop_pacer import MOST_WAIT_S, SliceTurns
from tests.factories import raw_item, raw_items, raw_user, raw_users
from tests.ranking.conftest import expected

pytestmark = pytest.mark.anyio

COUNT = 2 * READ_AT_ONCE + 5
IDS = [str(number) for number in range(COUNT)]


class Recording(MemoryFeatureStore):
    """A store that notes what it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(raw_users(5), raw_items(COUNT), **options)
        self.asked: list[tuple[str | None, int, float]] = []
        """User, number of items and seconds allowed of each round trip."""

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Any:
        self.asked.append((user_id, len(item_ids), timeout_s))
        return await super().fetch(user_id, item_ids, timeout_s)


@pytest.fixture
def store() -> Recording:
    return Recording()


@pytest.fixture
async def ranker(store: Recording, versions: list[Artifact]) -> Ranker:
    cache = ItemCache(4 * COUNT)
    await store.start(cache)
    await cache.attach(versions[0])
    return Ranker(store, cache, lambda: LiveSnapshot(stable=versions[0]), store_timeout_s=60.0)


async def rank(ranker: Ranker, request: RankRequest, seconds: float = 60.0) -> Ranking:
    return await ranker.rank(request, time.perf_counter() + seconds)


def scores(ranking: Ranking) -> dict[str, float]:
    return dict(zip(ranking.item_ids, ranking.scores.tolist(), strict=True))


async def test_many_overrides_score_as_forward_does_and_only_the_best_are_explained(
    ranker: Ranker, versions: list[Artifact]
) -> None:
    overrides = {item_id: {"year": 1930 + int(item_id) % 90, "tags": {"tag1": 0.5}} for item_id in IDS[3:]}
    for explain in (False, True):
        ranking = await rank(ranker, RankRequest("4", IDS, item_features=overrides, explain=explain))
        items = {item_id: raw_item(int(item_id)) | overrides.get(item_id, {}) for item_id in IDS}
        assert scores(ranking) == pytest.approx(expected(versions[0], "4", raw_user(4), items), abs=1e-5)
        assert len(ranking.explanations) == (MAX_EXPLAINED if explain else 0)


async def test_rows_that_become_other_items_between_two_slices_were_copied_before(versions: list[Artifact]) -> None:
    count = 3 * COPIED_AT_ONCE
    store, cache = MemoryFeatureStore(raw_users(5), raw_items(4 * count)), ItemCache(count + 8)
    await store.start(cache)
    await cache.attach(versions[0])
    ranker = Ranker(store, cache, lambda: LiveSnapshot(stable=versions[0]), store_timeout_s=60.0)
    ids = [str(number) for number in range(count)]
    items = {item_id: raw_item(int(item_id)) for item_id in ids}
    for start in range(0, count, READ_AT_ONCE):
        await rank(ranker, RankRequest("4", ids[start : start + READ_AT_ONCE]))
    sent = {"1": {"year": 1999}, ids[-1]: {"year": 1950}}
    request = RankRequest("4", [*ids, "new"], item_features=sent, explain=True, in_slices=True)
    alone = await rank(ranker, request)
    asked = asyncio.create_task(rank(ranker, request))
    written, others = 0, iter(range(count, 4 * count, 8))
    while not asked.done():
        await asyncio.sleep(0)
        store.put_item(ids[written % count], raw_item(count + written))
        written += 1
        if start := next(others, 0):
            await rank(ranker, RankRequest("4", [str(number) for number in range(start, start + 8)]))
    assert cache.counts.evictions > count, "all rows are other items' by now"
    beside_others = await asked
    assert scores(beside_others) == scores(alone)
    assert [one.logit for one in beside_others.explanations] == [one.logit for one in alone.explanations]
    want = expected(versions[0], "4", raw_user(4), items | {"new": {}} | {one: items[one] | sent[one] for one in sent})
    assert scores(alone) == pytest.approx(want, abs=1e-5)


async def test_a_version_that_is_retired_between_two_slices_is_scored_and_not_logged(versions: list[Artifact]) -> None:
    count = 3 * COPIED_AT_ONCE
    store, cache = MemoryFeatureStore(raw_users(5), raw_items(count)), ItemCache(2 * count)
    await store.start(cache)
    await cache.attach(versions[0])
    references = ItemReferences(cache, EventQueue(10_000))
    snapshot = LiveSnapshot(stable=versions[0])
    ranker = Ranker(store, cache, lambda: snapshot, store_timeout_s=60.0, references=references, references_top=5)
    request = RankRequest("4", [*map(str, range(count)), "new"], item_features={"1": {"year": 1999}}, in_slices=True)
    alone = await rank(ranker, request)
    assert alone.scored is not None
    assert alone.scored.item_references is not None
    copied = RequestItems._copy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RequestItems, "_copy", lambda self, some: (copied(self, some), cache.detach(versions[0])))
        retired = await rank(ranker, request)
    assert scores(retired) == scores(alone)
    assert retired.scored is not None
    assert retired.scored.item_references is None


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("count", [100, 3 * COPIED_AT_ONCE])
async def test_a_version_that_is_retired_while_values_are_looked_up_is_scored_and_not_logged(
    count: int, explain: bool, versions: list[Artifact]
) -> None:
    store, cache = MemoryFeatureStore(raw_users(5), raw_items(count)), ItemCache(2 * count)
    await store.start(cache)
    await cache.attach(versions[0])
    turns = SliceTurns()
    ranker = Ranker(
        store, cache, lambda: LiveSnapshot(stable=versions[0]), store_timeout_s=60.0, turns=turns,
        references=ItemReferences(cache, EventQueue(10_000)), references_top=5,
    )  # fmt: skip
    ids = [str(number) for number in range(count)]
    sent = {key: {"yaer": 1999} for key in ids}  # no field reads it, so that no state is computed
    for start in range(0, count, READ_AT_ONCE):
        await rank(ranker, RankRequest("4", ids[start : start + READ_AT_ONCE]))
    request = RankRequest("4", ids, item_features=sent, explain=explain, in_slices=True)
    alone = await rank(ranker, request)
    assert alone.scored is not None
    assert alone.scored.item_references is not None
    next_turn = turns.next

    async def retire(most_wait_s: float = MOST_WAIT_S) -> None:
        await next_turn(most_wait_s)
        cache.detach(versions[0])
        turns.next = next_turn  # type: ignore[method-assign]

    turns.next = retire  # type: ignore[method-assign]
    retired = await rank(ranker, request)
    assert scores(retired) == scores(alone)
    assert retired.scored is not None
    assert retired.scored.item_references is None


async def test_overrides_that_no_field_reads_cost_no_item_state(
    ranker: Ranker, versions: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = scores(await rank(ranker, RankRequest("4", IDS)))
    encoded: list[int] = []
    encode_items = versions[0].encode_items
    monkeypatch.setattr(
        versions[0], "encode_items", lambda slots: encoded.append(len(slots.keys)) or encode_items(slots)
    )
    for values in ({}, {"yaer": 1990}, {"item_id": "3"}):
        assert scores(await rank(ranker, RankRequest("4", IDS, item_features=dict.fromkeys(IDS, values)))) == plain
    assert encoded == []
    await rank(ranker, RankRequest("4", IDS, item_features={"1": {"year": 1990}, "2": {}}))
    assert encoded == [1]


async def test_many_items_that_are_not_cached_are_read_a_part_at_a_time(
    ranker: Ranker, store: Recording, versions: list[Artifact]
) -> None:
    ranking = await rank(ranker, RankRequest("4", IDS))
    parts = [READ_AT_ONCE] * (len(IDS) // READ_AT_ONCE) + [len(IDS) % READ_AT_ONCE]
    assert [items for _, items, _ in store.asked] == parts
    assert [user for user, _, _ in store.asked] == ["4", *[None] * (len(parts) - 1)]
    items = {item_id: raw_item(int(item_id)) for item_id in IDS}
    assert scores(ranking) == pytest.approx(expected(versions[0], "4", raw_user(4), items), abs=1e-5)
    await rank(ranker, RankRequest("4", IDS))
    assert [(user, items) for user, items, _ in store.asked[3:]] == [("4", 0)]


async def test_a_store_that_fails_in_the_middle_costs_what_it_has_not_given(
    ranker: Ranker, store: Recording, versions: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = store.fetch

    async def failing(user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Any:
        if user_id is None:
            raise StoreError("no answer in time")
        return await fetch(user_id, item_ids, timeout_s)

    monkeypatch.setattr(store, "fetch", failing)
    ranking = await rank(ranker, RankRequest("4", IDS))
    assert ranking.degraded == ["item_features_unavailable"]
    items = {item_id: raw_item(number) if number < READ_AT_ONCE else {} for number, item_id in enumerate(IDS)}
    assert scores(ranking) == pytest.approx(expected(versions[0], "4", raw_user(4), items), abs=1e-5)


@pytest.mark.parametrize("heavy", ["overrides", "unknown", "explain"])
async def test_a_usual_request_does_not_wait_for_the_end_of_a_heavy_one(ranker: Ranker, heavy: str) -> None:
    await rank(ranker, RankRequest("4", IDS))
    request = {
        "overrides": RankRequest("4", IDS, item_features={item_id: {"year": 1999} for item_id in IDS}),
        "unknown": RankRequest("4", [f"new{number}" for number in range(COUNT)]),
        "explain": RankRequest("4", IDS, explain=True),
    }[heavy]
    ended: list[str] = []

    async def note(name: str, request: RankRequest) -> None:
        await rank(ranker, request)
        ended.append(name)

    assert COUNT > 2 * SLICE
    await asyncio.gather(note("heavy", request), *(note("usual", RankRequest("4", IDS[:20])) for _ in range(3)))
    assert ended == ["usual"] * 3 + ["heavy"]


async def test_a_store_may_take_half_of_what_a_request_has_left(ranker: Ranker, store: Recording) -> None:
    await rank(ranker, RankRequest("4", IDS[:20]))
    store.failing = True
    store.asked.clear()
    for seconds in (20.0, 1000.0):
        ranking = await rank(ranker, RankRequest("4", IDS[:20]), seconds)
        assert set(ranking.degraded) == {USER_UNAVAILABLE, STALE_ITEMS}
    assert store.asked[0][2] <= 10.0
    assert store.asked[1][2] == 60.0


def late_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return one number, for the test to raise: by how many seconds `time.perf_counter` is ahead from now on."""
    now, late = time.perf_counter, [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now() + late[0])
    return late


async def test_no_item_is_explained_after_the_deadline(ranker: Ranker, monkeypatch: pytest.MonkeyPatch) -> None:
    await rank(ranker, RankRequest("4", IDS))
    late, explained = late_clock(monkeypatch), []
    explain = Explainer.explain

    async def slow(explainer: Explainer, item: Any, most_wait_s: float) -> Any:
        explained.append(item)
        late[0] += 40.0
        return await explain(explainer, item, most_wait_s)

    monkeypatch.setattr(Explainer, "explain", slow)
    with pytest.raises(DeadlinePassed, match="with 2 items explained"):
        await rank(ranker, RankRequest("4", IDS, explain=True))
    assert len(explained) == 2


async def test_an_answer_whose_last_item_is_explained_is_not_given_up(
    ranker: Ranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And on a busy loop half of what is left may go by with waiting, shared by the slices that are to come."""
    await rank(ranker, RankRequest("4", IDS))
    late, waits = late_clock(monkeypatch), []
    explain = Explainer.explain

    async def slow(explainer: Explainer, item: Any, most_wait_s: float) -> Any:
        waits.append(most_wait_s)
        explanation = await explain(explainer, item, most_wait_s)
        late[0] += {1: 59.0, MAX_EXPLAINED: 60.0}.get(len(waits), 0.0)
        return explanation

    monkeypatch.setattr(Explainer, "explain", slow)
    assert len((await rank(ranker, RankRequest("4", IDS, explain=True))).explanations) == MAX_EXPLAINED
    assert waits[0] == MOST_WAIT_S
    assert 0 < waits[1] <= 1 / (2 * ITEM_SLICES * (MAX_EXPLAINED - 1)) < MOST_WAIT_S


async def test_no_scoring_begins_after_the_deadline(
    ranker: Ranker, versions: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    await rank(ranker, RankRequest("4", IDS))
    late = late_clock(monkeypatch)
    encode_items = versions[0].encode_items

    def slow(slots: Any) -> Any:
        late[0] += 100.0
        return encode_items(slots)

    monkeypatch.setattr(versions[0], "encode_items", slow)
    monkeypatch.setattr(versions[0], "ranked", lambda *_: pytest.fail("it was scored"))
    with pytest.raises(DeadlinePassed):
        await rank(ranker, RankRequest("4", IDS, item_features={"1": {"year": 1990}}))
