"""Tests of scoring in slices: the same scores in the same order, of items that stay what they are."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from app.errors import DeadlinePassed
from app.events.event_queue import EventQueue
from app.events.item_references import ItemReferences
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.native.scorer import Floats, Positions
from app.ranking import candidate_scorer
from app.ranking.candidate_scorer import CandidateScorer, Scored, StateRows
from app.ranking.ranker import Ranker
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact, sort_descending
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.runtime.loop_pacer import SliceTurns
from tests.factories import ITEMS, raw_item
from tests.ranking.conftest import expected

SLICE = 4
IDS = [str(number) for number in range(ITEMS)]
FOREVER = float("inf")


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate_scorer, "SLICE", SLICE)


class GivenScores:
    """A version whose states are the scores."""

    def ranked(self, user_D: Tensor, states_CD: Tensor, row_N: Any) -> tuple[Floats, Positions]:
        return sort_descending(states_CD[torch.from_numpy(row_N), 0])


async def score(states: list[float], row_N: Any, due: float = FOREVER, *, in_slices: bool = True) -> Scored:
    artifact: Any = GivenScores()
    candidates = StateRows(torch.tensor(states)[:, None], row_N, are_cached=False)
    scorer = CandidateScorer(ItemCache(8), SliceTurns())
    scoring = scorer.score(artifact, torch.zeros(1), candidates, due, in_slices=in_slices)
    return scoring if isinstance(scoring, Scored) else await scoring


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan")]), min_size=1, max_size=40), st.randoms())
def test_slices_give_the_order_of_the_whole_ties_and_nan_included(states: list[float], dice: Any) -> None:
    row_N = np.array([dice.randrange(len(states)) for _ in states])
    at_once = asyncio.run(score(states, row_N, in_slices=False))
    sliced = asyncio.run(score(states, row_N))
    np.testing.assert_array_equal(sliced.score_N, at_once.score_N)
    np.testing.assert_array_equal(sliced.position_N, at_once.position_N)


def test_no_slice_begins_after_the_deadline() -> None:
    with pytest.raises(DeadlinePassed):
        asyncio.run(score([0.5] * (SLICE + 1), np.arange(SLICE + 1), due=time.perf_counter()))


class FullCache:
    """A cache as large as the catalogue, all of it cached, and the version that is live."""

    def __init__(self, artifact: Artifact, features: MemoryFeatureStore) -> None:
        self.artifact = artifact
        self.cache = ItemCache(ITEMS)
        self.features = features

    async def start(self) -> None:
        await self.features.start(self.cache)
        await self.cache.attach(self.artifact)
        await self.features.fetch(None, IDS, 1.0)

    def begin(self, on_slice: Any = None) -> asyncio.Task[Scored]:
        """Begin to score all items in slices."""
        scorer = CandidateScorer(self.cache, SliceTurns())
        rows = StateRows(self.cache.states(self.artifact), self.cache.find(IDS).rows, are_cached=True)
        user_D = self.artifact.encode_user(self.artifact.user_encoder.encode(self.features.users["4"], "4"))
        scoring: Any = scorer.score(self.artifact, user_D, rows, FOREVER, in_slices=True, hold=on_slice)
        return asyncio.ensure_future(scoring)


@pytest.mark.anyio
async def test_items_keep_their_rows_until_all_are_scored(
    versions: list[Artifact], features: MemoryFeatureStore
) -> None:
    full = FullCache(versions[0], features)
    await full.start()
    reference = expected(versions[0], "4", features.users["4"], {item_id: raw_item(int(item_id)) for item_id in IDS})
    scoring = full.begin()
    await asyncio.sleep(0)
    others = [f"other{number}" for number in range(ITEMS)]
    full.cache.on_items(others, [raw_item(number) for number in range(ITEMS)])
    scored = await scoring
    for position, probability in zip(scored.position_N.tolist(), scored.score_N.tolist(), strict=True):
        assert probability == pytest.approx(reference[IDS[position]], abs=1e-5)
    full.cache.on_items(others, [raw_item(number) for number in range(ITEMS)])
    assert all(item_id in full.cache for item_id in others), "no row is pinned afterwards"


@pytest.mark.anyio
async def test_rows_are_free_again_after_a_failure(versions: list[Artifact], features: MemoryFeatureStore) -> None:
    full = FullCache(versions[0], features)
    await full.start()

    def fail_at_second(some: slice) -> None:
        if some.start:
            raise RuntimeError("index out of range")

    with pytest.raises(RuntimeError):
        await full.begin(fail_at_second)
    others = [f"other{number}" for number in range(ITEMS)]
    full.cache.on_items(others, [raw_item(number) for number in range(ITEMS)])
    assert all(item_id in full.cache for item_id in others)


@pytest.mark.anyio
@pytest.mark.parametrize("more", [{}, {"explain": True}, {"item_features": {"3": {"year": 1950}}}], ids=str)
async def test_a_version_that_is_retired_between_slices_answers_what_it_has_begun(
    versions: list[Artifact], features: MemoryFeatureStore, more: dict[str, Any]
) -> None:
    full = FullCache(versions[0], features)
    await full.start()
    ranker = Ranker(
        features,
        full.cache,
        lambda: LiveSnapshot(stable=versions[0]),
        store_timeout_s=1.0,
        references=ItemReferences(full.cache, EventQueue(1000)),
        references_top=5,
    )
    request = RankRequest("4", IDS, in_slices=True, **more)
    at_once = await ranker.rank(request.replace(in_slices=False), time.perf_counter() + 60)
    answer = asyncio.create_task(ranker.rank(request, time.perf_counter() + 60))
    await asyncio.sleep(0)
    full.cache.detach(versions[0])
    assert (await answer).item_ids == at_once.item_ids
    assert (await answer).explanations == at_once.explanations


@pytest.mark.anyio
@pytest.mark.parametrize("more", [{}, {"explain": True}, {"item_features": {"3": {"year": 1950}}}], ids=str)
async def test_an_answer_in_slices_is_that_at_once(ranker: Ranker, more: dict[str, Any]) -> None:
    request = RankRequest("4", IDS, **more)
    at_once, sliced = [
        await ranker.rank(one, time.perf_counter() + 60) for one in (request, request.replace(in_slices=True))
    ]
    assert sliced.item_ids == at_once.item_ids
    assert sliced.scores.tolist() == at_once.scores.tolist()
    assert sliced.explanations == at_once.explanations
