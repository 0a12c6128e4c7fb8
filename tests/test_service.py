"""The composition root, driven without any HTTP: the parts are tied so that every edge gets their protection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from app.errors import ConfigError, Overloaded
from app.features.memory_store import MemoryFeatureStore
from app.models.deepfm import DeepFM
from app.models.native_weights import TopMlpWeights
from app.ranking.request import RankRequest
from app.registry.store.model_store import ModelStore
from app.service import Service, build_service
from app.settings import Settings
from tests.factories import MODEL_NAME, raw_items, raw_users
from tests.registry.torchscript.variants import publish_model, retrained_model
from tests.waiting import async_until

PATIENCE_S = 300.0
IDS = [str(number) for number in range(30)]


class Raising(DeepFM):
    """Fails for requests of the size that this test sends."""

    def top_mlp(self) -> TopMlpWeights | None:
        return None  # no part of it can be run by the native scorer

    def probability(self, logits_N: Tensor) -> Tensor:
        if logits_N.shape[0] == 30:
            raise RuntimeError("no such size")
        return torch.sigmoid(logits_N * self.calibration_2[0] + self.calibration_2[1])


class SuspendingStore(MemoryFeatureStore):
    """Takes a turn of the event loop to answer, as a store on a network does."""

    async def fetch(self, *args: Any) -> Any:
        await asyncio.sleep(0)
        return await super().fetch(*args)


@pytest.fixture
def settings(store: ModelStore) -> Settings:
    return Settings(
        _env_file=None,
        model_store=store.folder.parent,
        model=MODEL_NAME,
        canary_min_requests=20,
        max_inflight=2,
        poll_s=0.05,
    )


@pytest.fixture
async def service(settings: Settings, store: ModelStore) -> AsyncIterator[Service]:
    publish_model(store, retrained_model(), live=True)
    store.promote(publish_model(store, retrained_model(Raising, seed=1)), "canary", 1.0)
    service = build_service(settings, SuspendingStore(raw_users(), raw_items()))
    await service.start()
    yield service
    await service.stop()


async def test_a_failing_canary_is_answered_for_counted_and_withdrawn(service: Service, store: ModelStore) -> None:
    assert service.lifecycle.status().versions == {"stable": 1, "canary": 2}
    ranking = await service.ranking.rank(lambda: RankRequest("4", IDS), 10)
    assert (ranking.label, ranking.artifact.version, ranking.degraded) == ("stable", 1, ["model_fallback"])
    await async_until(lambda: "canary" not in service.lifecycle.status().versions, PATIENCE_S)
    await async_until(lambda: store.pointer().canary is None, PATIENCE_S)
    ranking = await service.ranking.rank(lambda: RankRequest("4", IDS), 10)
    assert ranking.degraded == []
    metrics = service.metrics.render()[0].decode()
    assert 'ctr_canary_withdrawn_total{reason="errors"} 1.0' in metrics
    assert 'ctr_model_errors_total{version="2"} 1.0' in metrics
    assert 'ctr_degraded_total{reason="model_fallback"} 1.0' in metrics


async def test_requests_beyond_the_limit_are_refused_and_counted(service: Service) -> None:
    requests = [service.ranking.rank(lambda: RankRequest("4", IDS[:5]), 10) for _ in range(4)]
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert [isinstance(answer, Overloaded) for answer in answers] == [False, False, True, True]
    assert 'ctr_rejected_total{reason="overloaded"} 2.0' in service.metrics.render()[0].decode()


def test_a_store_without_entries_is_used_all_the_same(settings: Settings) -> None:
    class SizedStore(MemoryFeatureStore):
        def __len__(self) -> int:
            return len(self.items)

    store = SizedStore()
    assert build_service(settings, store).store is store


def test_a_store_has_to_be_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CTR_REDIS_URL is empty"):
        build_service(settings)
