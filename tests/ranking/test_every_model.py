"""Every model from published version to ranked answer: Ranker, item cache and store as the service has them."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from msgspec import UNSET

from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.models import MODELS
from app.ranking.explain import MAX_EXPLAINED
from app.ranking.logit_parts import MAX_ERROR
from app.ranking.ranker import Ranker
from app.ranking.request import RankRequest
from app.registry.artifact.load import load
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.registry.store.model_store import ModelStore
from tests.factories import publish_tiny, raw_context, raw_item, raw_items, raw_user, raw_users
from tests.ranking.conftest import expected
from tests.ranking.explanations import parts_of

HAVE_PARTS = ("lr", "fm", "hofm", "deepfm", "wide_deep", "nfm")


@pytest.mark.parametrize("architecture", MODELS)
async def test_a_published_model_ranks_as_forward_does(tmp_path: Path, architecture: str) -> None:
    store = ModelStore(tmp_path, architecture)
    version = load(store.path(publish_tiny(store, 11, architecture=architecture)))
    features, cache = MemoryFeatureStore(raw_users(), raw_items()), ItemCache(capacity=256)
    await features.start(cache)
    await cache.attach(version)
    ranker = Ranker(features, cache, lambda: LiveSnapshot(stable=version), store_timeout_s=1.0)
    stored = {str(number): raw_item(number) for number in range(30)}
    candidates = {**stored, "nobody knows": {}}
    context, override = raw_context(5), {"year": 1994, "genres": ["Drama"], "popularity": 3}
    request = RankRequest("4", list(candidates), context=context, item_features={"7": override})
    by_forward = expected(version, "4", raw_user(4) | context, {**candidates, "7": {**candidates["7"], **override}})
    for cached in (False, True):
        ranking = await ranker.rank(request, time.perf_counter() + 10)
        assert features.fetches == 1 + cached, "one round trip a request"
        scores = dict(zip(ranking.item_ids, ranking.scores, strict=True))
        assert scores == pytest.approx(by_forward, abs=1e-5)
        assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
        assert ranking.degraded == []
        assert ranking.missing_items == ["nobody knows"]
    explained = await ranker.rank(request.replace(explain=True), time.perf_counter() + 10)
    assert len(explained.explanations) == MAX_EXPLAINED
    scale, offset = version.program.calibration_2.tolist()
    for score, explanation in zip(explained.scores, explained.explanations, strict=False):
        assert 1 / (1 + math.exp(-scale * explanation.logit - offset)) == pytest.approx(score, abs=1e-5)
        assert explanation.effects
        assert (explanation.no_parts is UNSET) == (architecture in HAVE_PARTS)
        if architecture in HAVE_PARTS:
            assert sum(parts_of(explanation).values()) == pytest.approx(explanation.logit, abs=MAX_ERROR)
    assert max(by_forward.values()) - min(by_forward.values()) > 1e-3, "a test on equal scores would see nothing"
