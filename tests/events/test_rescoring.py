"""Recorded answers are scored again to the same scores, by the versions that gave them; a change of one is found."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.errors import ArtifactError
from app.events.event_queue import EventQueue
from app.events.event_writer import EventWriter
from app.events.item_references import ItemReferences
from app.events.records import IMPRESSIONS, ITEMS
from app.events.rescoring import rescore
from app.events.segment import segments
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.ranking.impressions import ImpressionLog
from app.ranking.ranker import Ranker
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.registry.store.model_store import ModelStore
from tests.factories import MODEL_NAME, publish_tiny, raw_items, raw_users

USERS, ITEM_IDS = 30, [str(number) for number in range(60)]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Artifact]:
    store = ModelStore(tmp_path_factory.mktemp("store"), MODEL_NAME)
    numbers = [publish_tiny(store, seed) for seed in range(3)]
    return {number: load(store.path(number)) for number in numbers}


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory, versions: dict[int, Artifact]) -> Path:
    """A log of three versions, with overrides, guests, unknown items and a failing store among the answers."""
    folder = tmp_path_factory.mktemp("events")

    async def serve() -> None:
        features, cache, queue = (
            MemoryFeatureStore(raw_users(), raw_items()),
            ItemCache(capacity=256),
            EventQueue(10**6),
        )
        writer = EventWriter(queue, folder)
        writer.start()
        await features.start(cache)
        live = [LiveSnapshot()]
        references = ItemReferences(cache, queue)
        ranker = Ranker(
            features,
            cache,
            lambda: live[0],
            store_timeout_s=1.0,
            references=references,
            references_top=20,
        )
        log = ImpressionLog(queue, references, 20)
        cache.before_change = log.record_noted
        for artifact in versions.values():
            await cache.attach(artifact)
            live[0] = replace(live[0], stable=artifact)
            for user in range(USERS):
                features.failing = user % 10 == 9
                more: dict[str, Any] = {"user_id": str(user) if user % 4 else None}
                if user % 3 == 0:
                    more["item_features"] = {"7": {"year": 1990 + user}}
                if user % 5 == 0:
                    more["context"] = {"hour": user % 24}
                request = RankRequest(**{"item_ids": [*ITEM_IDS, "unknown"], **more})
                log.on_ranked(request, await ranker.rank(request, time.perf_counter() + 10))
        log.record_noted()
        writer.stop()

    asyncio.run(serve())
    return folder


def test_all_scores_are_those_recorded(events: Path, versions: dict[int, Artifact]) -> None:
    found = rescore(events, lambda model, version: versions[version])
    assert (found.different, found.without_slots, found.unavailable) == (0, 0, {})
    assert found.largest <= 1e-6
    assert found.by_version == {(MODEL_NAME, version): 20 * USERS for version in versions}


def test_another_version_in_its_place_is_found(events: Path, versions: dict[int, Artifact]) -> None:
    first = min(versions)
    found = rescore(events, lambda model, version: versions[first])
    assert found.different > 20 * USERS
    assert found.example


def test_a_version_that_was_pruned_is_named_and_the_others_are_checked(
    events: Path, versions: dict[int, Artifact]
) -> None:
    def load_two(model: str, version: int) -> Artifact:
        if version == 2:
            raise ArtifactError("missing", "it was pruned")
        return versions[version]

    found = rescore(events, load_two)
    assert found.unavailable == {(MODEL_NAME, 2): "it was pruned"}
    assert found.rows == 2 * 20 * USERS


def test_a_changed_slot_and_a_lost_item_are_found(events: Path, versions: dict[int, Artifact], tmp_path: Path) -> None:
    for kind in (IMPRESSIONS, ITEMS):
        for name, path in segments(events, kind):
            frame = pl.read_parquet(path)
            if kind == ITEMS:
                frame = frame.filter(pl.col("item_id") != "unknown")
                changed = pl.when(pl.col("item_id") == "3").then(pl.col("keys").list.reverse())
                frame = frame.with_columns(changed.otherwise(pl.col("keys")).alias("keys"))
            target = tmp_path / str(name)
            target.parent.mkdir(parents=True)
            frame.write_parquet(target, metadata={"ctr.format": "1"})
    found = rescore(tmp_path, lambda model, version: versions[version])
    assert found.different > 0
    assert found.without_slots > 0
