"""What is recorded of an answer gives its scores again, however the features came into it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
import torch

from app.events.event_queue import EventQueue
from app.events.impression_id import parse_impression_id
from app.events.item_references import ItemReferences
from app.events.records import IMPRESSIONS, ItemSlots
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.features.slots import Slots
from app.ranking import candidate_scorer
from app.ranking.batcher import Batcher
from app.ranking.impressions import ImpressionLog
from app.ranking.ranker import Ranker
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LiveSnapshot
from tests.events.records import Impression, impressions_of
from tests.factories import raw_item

TOP = 10
IDS = [str(number) for number in range(30)]


class Logged:
    """A ranker with an event log whose records stay in the queue."""

    def __init__(
        self,
        features: MemoryFeatureStore,
        cache: ItemCache,
        live: list[LiveSnapshot],
        *,
        batched: bool,
        limit: int = 10**6,
    ) -> None:
        self.queue = EventQueue(limit)
        references = ItemReferences(cache, self.queue)
        self.ranker = Ranker(
            features,
            cache,
            lambda: live[0],
            store_timeout_s=1.0,
            batcher=Batcher(64, max_wait_us=100.0) if batched else None,
            references=references,
            references_top=TOP,
        )
        self.log = ImpressionLog(self.queue, references, TOP)
        cache.before_change = self.log.record_noted

    async def ask(self, **request: Any) -> str:
        """Rank, and return the impression's id."""
        asked = RankRequest(**{"user_id": "4", "item_ids": IDS, **request})
        ranking = await self.ranker.rank(asked, time.perf_counter() + 10)
        self.log.on_ranked(asked, ranking)
        assert ranking.impression_id is not None
        return ranking.impression_id

    def taken(self) -> tuple[dict[str, Impression], dict[int, ItemSlots]]:
        self.log.record_noted()
        records = self.queue.take(10**6)
        impressions = {record.impression_id: record for record in impressions_of(records)}
        return impressions, {record.reference: record for record in records if isinstance(record, ItemSlots)}


@pytest.fixture(params=[False, True], ids=["alone", "batched"])
async def logged(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    features: MemoryFeatureStore,
    cache: ItemCache,
    live: list[LiveSnapshot],
    versions: list[Artifact],
) -> Logged:
    monkeypatch.setattr(candidate_scorer, "SLICE", 8)
    await features.start(cache)
    for artifact in versions:
        await cache.attach(artifact)
    return Logged(features, cache, live, batched=request.param)


def scored_again(artifact: Artifact, impression: Impression, items: dict[int, ItemSlots]) -> list[float]:
    """Return the scores of an impression's items from nothing but what was recorded."""
    records = [items[reference] for reference in impression.item_references.tolist()]
    slots = Slots(np.stack([record.keys for record in records]), np.stack([record.values for record in records]))
    with torch.inference_mode():
        user_D = artifact.encode_user(Slots(impression.user_keys, impression.user_values))
        scores_K, order_K = artifact.ranked(user_D, artifact.encode_items(slots), np.arange(len(records)))
    return scores_K[np.argsort(order_K)].tolist()  # type: ignore[no-any-return]


REQUESTS: list[dict[str, Any]] = [
    {},
    {"user_id": None},
    {"user_id": "nobody"},
    {"context": {"hour": 3}},
    {"user_features": {"age": 77}},
    {"item_ids": ["unknown", "3", "3", "5"]},
    {"item_features": {"3": {"genres": ["Horror"]}, "7": {"price": 3.5}}},
    {"top_k": 3},
    {"explain": True},
    {"item_ids": ["8"]},
    {"in_slices": True},
    {"in_slices": True, "explain": True},
    {"in_slices": True, "item_features": {"3": {"genres": ["Horror"]}}},
    {"in_slices": True, "item_features": {"no candidate": {"year": 1}}},
    {"in_slices": True, "item_features": {"3": {}}, "explain": True},
]


@pytest.mark.parametrize("version", [0, 2])
async def test_recorded_slots_give_the_recorded_scores(
    logged: Logged, live: list[LiveSnapshot], versions: list[Artifact], version: int
) -> None:
    live[0] = LiveSnapshot(stable=versions[version])
    asked = [request for request in REQUESTS for _ in range(2)]  # cold, then cached
    made = [await logged.ask(**request) for request in asked]
    impressions, items = logged.taken()
    assert impressions.keys() == set(made)
    for request, name in zip(asked, made, strict=True):
        impression = impressions[name]
        again = scored_again(versions[version], impression, items)
        assert impression.scores.tolist() == pytest.approx(again, abs=1e-6)
        assert len(again) == min(TOP, request.get("top_k", TOP), impression.candidates)
        assert parse_impression_id(impression.impression_id)[1:3] == (versions[version].version, "stable")


async def test_an_id_says_whether_the_version_was_named(
    logged: Logged, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    live[0] = LiveSnapshot(stable=versions[0])
    assert [parse_impression_id(await logged.ask(model=model)).pinned for model in (None, "stable")] == [False, True]


async def test_changes_between_requests_at_work_are_recorded_as_they_were_scored(
    logged: Logged, versions: list[Artifact], features: MemoryFeatureStore
) -> None:
    async def ask_again_and_again(**request: Any) -> None:
        for _ in range(20):
            await logged.ask(**request)
            await asyncio.sleep(0)

    async def change() -> None:
        for number in range(40):
            features.put_item(str(number % 30), raw_item(number + 7))
            await asyncio.sleep(0)

    in_slices = ask_again_and_again(in_slices=True)
    at_once = ask_again_and_again(in_slices=True, item_ids=IDS[:6], item_features={"no candidate": {"year": 1}})
    explained = ask_again_and_again(in_slices=True, explain=True)
    await asyncio.gather(ask_again_and_again(), ask_again_and_again(), in_slices, at_once, explained, change())
    impressions, items = logged.taken()
    assert len(impressions) == 100
    for impression in impressions.values():
        assert impression.scores.tolist() == pytest.approx(scored_again(versions[0], impression, items), abs=1e-6)


async def test_an_items_slots_are_recorded_once(logged: Logged) -> None:
    for _ in range(5):
        await logged.ask()
    _, items = logged.taken()
    assert len(items) == len({record.item_id for record in items.values()})


async def test_values_sent_for_some_items_write_the_slots_of_these_and_of_none_that_the_log_has(logged: Logged) -> None:
    impression, items = await asked_once(logged)
    best = [items[reference].item_id for reference in impression.item_references.tolist()]
    sent = {item_id: {"year": 1950} for item_id in best[:2]}
    for explain in (False, True):
        impression, items = await asked_once(logged, item_ids=best, item_features=sent, explain=explain)
        assert {record.item_id for record in items.values()} == set(sent)
        assert items.keys() <= set(impression.item_references.tolist())
        assert len(impression.item_references) == TOP


async def test_a_request_in_slices_writes_the_slots_of_the_best_of_each_slice_alone(logged: Logged) -> None:
    _, items = await asked_once(logged, in_slices=True)
    assert len(items) <= 30 // 8 * TOP
    _, items = await asked_once(logged, in_slices=True)
    assert items == {}


async def asked_once(logged: Logged, **request: Any) -> tuple[Impression, dict[int, ItemSlots]]:
    """Rank, and return what was recorded of it."""
    await logged.ask(**request)
    impressions, items = logged.taken()
    (impression,) = impressions.values()
    return impression, items


async def test_where_there_is_no_room_the_answer_goes_out_and_the_loss_is_counted(
    features: MemoryFeatureStore, cache: ItemCache, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    await features.start(cache)
    await cache.attach(versions[0])
    logged = Logged(features, cache, live, batched=False, limit=5)
    assert await logged.ask()
    logged.log.record_noted()
    assert logged.queue.dropped == {IMPRESSIONS: 1}
    assert len(logged.queue) == 0
