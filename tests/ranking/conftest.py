"""Fixtures: a whole ranking core over features in memory, and an admission on a clock that the test sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.features.slots import Slots
from app.ranking.admission import Admission
from app.ranking.batcher import Batcher
from app.ranking.ranker import Ranker
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.registry.store.model_store import ModelStore
from tests.factories import MODEL_NAME, publish_tiny, raw_items, raw_users
from tests.ranking.admissions import Processor, trying_anew


def expected(
    artifact: Artifact, user_id: str | None, user: Mapping[str, Any], items: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    """Return the probabilities by the reference: encode everything, run `forward`."""
    encoder = artifact.item_encoder
    slots = [encoder.encode(raw, item_id) for item_id, raw in items.items()]
    stacked = Slots(np.stack([s.keys for s in slots]), np.stack([s.values for s in slots]))
    scores = artifact.score_by_forward(artifact.user_encoder.encode(user, user_id), stacked)
    return dict(zip(items, scores.tolist(), strict=True))


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """Three versions of one model with different weights."""
    store = ModelStore(Path(tmp_path_factory.mktemp("store")), MODEL_NAME)
    numbers = [publish_tiny(store, seed) for seed in range(3)]
    return [load(store.path(number)) for number in numbers]


@pytest.fixture
def features() -> MemoryFeatureStore:
    return MemoryFeatureStore(raw_users(), raw_items())


@pytest.fixture
def cache() -> ItemCache:
    return ItemCache(capacity=256)


@pytest.fixture
def live(versions: list[Artifact]) -> list[LiveSnapshot]:
    """Return a list of one snapshot; replace the element to change what is live."""
    return [LiveSnapshot(stable=versions[0])]


@pytest.fixture(params=[0, 64], ids=["alone", "batched"])
async def ranker(
    request: pytest.FixtureRequest,
    features: MemoryFeatureStore,
    cache: ItemCache,
    live: list[LiveSnapshot],
    versions: list[Artifact],
) -> Ranker:
    """Build a ranker without and with a batcher: an answer must not depend on whether it is scored alone."""
    await features.start(cache)
    for artifact in versions:
        await cache.attach(artifact)
    batcher = Batcher(request.param, max_wait_us=100.0) if request.param else None
    return Ranker(features, cache, lambda: live[0], store_timeout_s=1.0, batcher=batcher)


@pytest.fixture
def processor() -> Processor:
    return Processor()


@pytest.fixture
def admission(processor: Processor) -> Admission:
    return trying_anew(processor)
