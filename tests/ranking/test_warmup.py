"""Tests of what is run before a version goes live, and that it is detached if that fails."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from app.features.cache_refresher import CacheRefresher
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.ranking.warmup import WARM_BESIDE_REQUESTS, Warmup
from app.registry.artifact.artifact import Artifact


@pytest.fixture
async def preparation(cache: ItemCache, features: MemoryFeatureStore) -> Warmup:
    await features.start(cache)
    return Warmup(features, cache, CacheRefresher(features, cache, fill=True), max_candidates=256)


async def test_large_sizes_are_warmed_up_for_the_first_version_only(
    preparation: Warmup, versions: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked, sizes = Artifact.ranked, list[int]()

    def counted(self: Artifact, user_D: Tensor, states_CD: Tensor, row_N: Any) -> Any:
        sizes.append(len(row_N))
        return ranked(self, user_D, states_CD, row_N)

    monkeypatch.setattr(Artifact, "ranked", counted)
    await preparation.prepare(versions[0])
    assert sizes == [1, 10, 50, 100, 200, 256]
    sizes.clear()
    await preparation.prepare(versions[1])
    assert sizes == [1, 10, 50, 100, 200]
    assert sizes[-1] == WARM_BESIDE_REQUESTS


async def test_after_a_first_version_that_failed_all_sizes_are_warmed_up(
    preparation: Warmup, cache: ItemCache, versions: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked, largest = Artifact.ranked, 0

    def failing(self: Artifact, user_D: Tensor, states_CD: Tensor, row_N: Any) -> Any:
        nonlocal largest
        largest = max(largest, len(row_N))
        if self is versions[0]:
            raise RuntimeError("this version fails")
        return ranked(self, user_D, states_CD, row_N)

    monkeypatch.setattr(Artifact, "ranked", failing)
    with pytest.raises(RuntimeError, match="fails"):
        await preparation.prepare(versions[0])
    with pytest.raises(KeyError):
        cache.states(versions[0])
    await preparation.prepare(versions[1])
    assert largest == 256


async def test_a_cache_smaller_than_a_request_is_warmed_up_within_its_rows(
    features: MemoryFeatureStore, versions: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked, largest_row = Artifact.ranked, 0

    def recording(self: Artifact, user_D: Tensor, states_CD: Tensor, row_N: Any) -> Any:
        nonlocal largest_row
        largest_row = max(largest_row, int(row_N.max()))
        return ranked(self, user_D, states_CD, row_N)

    monkeypatch.setattr(Artifact, "ranked", recording)
    cache = ItemCache(16, unknown_capacity=4)
    await Warmup(features, cache, CacheRefresher(features, cache, fill=False), max_candidates=256).prepare(versions[0])
    assert largest_row == 19
