"""Tests of the shadow: it scores answered requests, only while the loop is idle, and only a bounded number."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from app.features.cache_refresher import CacheRefresher
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.features.request_ids import RequestIds
from app.ranking.degraded import NOT_FINITE
from app.ranking.monitor import ModelMonitor
from app.ranking.ranker import Ranker, Ranking
from app.ranking.request import RankRequest
from app.ranking.shadow import Shadow, ShadowBudget
from app.ranking.shadow_stats import ShadowComparison, compare
from app.ranking.warmup import Warmup
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.registry.store.model_store import ModelStore
from app.runtime.loop_pacer import nothing_to_do
from tests.factories import publish_tiny
from tests.work import spin

IDS = [str(number) for number in range(30)]
UNBOUNDED = ShadowBudget(busy_share=1.0, min_idle_share=1.0)
"""No pause between two comparisons, though the test itself keeps the loop busy."""


async def always_idle() -> bool:
    await asyncio.sleep(0)
    return True


class Setting:
    """A shadow beside a ranker, with what is live and what is at work set by the test."""

    def __init__(
        self,
        ranker: Ranker,
        live: Callable[[], LiveSnapshot],
        share: float = 1.0,
        budget: ShadowBudget = UNBOUNDED,
        loop_is_idle: Callable[[], Awaitable[bool]] = always_idle,
    ) -> None:
        self.ranker = ranker
        self.worked_s: Callable[[], float] = time.thread_time
        self.busy = False
        self.requests: list[RankRequest] = []
        self.slow = asyncio.Event()
        self.slow.set()
        self.held_s: list[float] = []
        self.fails: Exception | None = None
        self.outcomes: list[tuple[str, ShadowComparison | None]] = []
        self.monitor = ModelMonitor(live)
        self.shadow = Shadow(
            self,
            live,
            self.monitor,
            share=share,
            idle=lambda: not self.busy,
            worked_s=lambda: self.worked_s(),
            budget=budget,
            loop_is_idle=loop_is_idle,
            on_outcome=lambda outcome, comparison: self.outcomes.append((outcome, comparison)),
        )

    async def rank(self, request: RankRequest, due: float) -> Ranking:
        self.requests.append(request)
        await self.slow.wait()
        if self.fails is not None:
            raise self.fails
        ranking = await self.ranker.rank(request, due)
        self.held_s.append(ranking.encode_s + ranking.score_s)
        return ranking

    async def serve(self, request: RankRequest) -> Ranking:
        answer = await self.ranker.rank(request, time.perf_counter() + 10)
        self.shadow.on_ranked(request, answer)
        return answer

    async def settled(self) -> None:
        if self.shadow._task is not None:
            await asyncio.wait([self.shadow._task])


@pytest.fixture
def setting(ranker: Ranker, live: list[LiveSnapshot], versions: list[Artifact]) -> Setting:
    live[0] = LiveSnapshot(stable=versions[0], shadow=versions[1])
    return Setting(ranker, lambda: live[0])


async def test_the_comparison_is_with_what_was_answered(
    setting: Setting, ranker: Ranker, versions: list[Artifact]
) -> None:
    answer = await setting.serve(RankRequest("4", IDS, top_k=12, explain=True))
    await setting.settled()
    [(outcome, comparison)] = setting.outcomes
    assert outcome == "compared"
    assert comparison is not None
    other = await ranker.rank(RankRequest("4", IDS, model="shadow"), time.perf_counter() + 10)
    assert other.artifact is versions[1]
    by_id = dict(zip(other.item_ids, other.scores.tolist(), strict=True))
    shadow_N = np.array([by_id[item_id] for item_id in answer.item_ids])
    assert comparison.ratio == pytest.approx(shadow_N.mean() / answer.scores.mean(), rel=1e-5)
    assert comparison.correlation == pytest.approx(spearmanr(shadow_N, answer.scores).statistic)
    [request] = setting.requests
    assert (request.model, request.top_k, request.explain) == ("shadow", None, False)
    stats = setting.shadow.stats()
    assert stats is not None
    assert (stats.version, stats.compared, stats.skipped, stats.failed) == (versions[1].version, 1, 0, 0)
    assert stats.shift == pytest.approx(shadow_N.mean() - answer.scores.mean(), abs=1e-6)
    assert stats.ratio == pytest.approx(comparison.ratio)
    assert stats.correlation == pytest.approx(comparison.correlation)
    assert setting.monitor.stats()["shadow", versions[1].version].requests == 1


async def test_a_shadow_that_is_replaced_before_its_turn_scores_nothing_and_is_not_blamed(
    setting: Setting, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    setting.fails = RuntimeError("the new shadow fails")
    await setting.serve(RankRequest("4", IDS))
    live[0] = LiveSnapshot(stable=versions[0], shadow=versions[2])
    await setting.settled()
    assert [outcome for outcome, _ in setting.outcomes] == ["skipped"]
    assert setting.requests == []
    assert setting.monitor.stats() == {}


async def test_of_a_long_answer_a_sample_is_scored_spread_over_its_order(
    ranker: Ranker, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    live[0] = LiveSnapshot(stable=versions[0], shadow=versions[1])
    setting = Setting(ranker, lambda: live[0], budget=replace(UNBOUNDED, sample_size=10))
    seen = set()
    for _ in range(30):
        answer = await setting.serve(RankRequest("4", IDS, top_k=29))
        await setting.settled()
        position = {item_id: number for number, item_id in enumerate(answer.item_ids)}
        order = [position[item_id] for item_id in setting.requests[-1].item_ids]
        assert set(np.diff(order)) == {3}
        assert (len(order), order[0]) in ((10, 0), (10, 1), (9, 2))
        seen.add(order[0])
        comparison = setting.outcomes[-1][1]
        assert comparison is not None
        other = await ranker.rank(RankRequest("4", IDS, model="shadow"), time.perf_counter() + 10)
        by_id = dict(zip(other.item_ids, other.scores.tolist(), strict=True))
        shadow_N = [by_id[item_id] for item_id in setting.requests[-1].item_ids]
        assert comparison.shadow_mean == pytest.approx(np.mean(shadow_N), rel=1e-5)
        assert comparison.answer_mean == pytest.approx(answer.scores[order].mean(), rel=1e-5)
        assert comparison.correlation == pytest.approx(spearmanr(shadow_N, answer.scores[order]).statistic)
    assert seen == {0, 1, 2}


async def test_no_comparison_begins_where_requests_keep_the_loop_at_work(
    ranker: Ranker, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    live[0] = LiveSnapshot(stable=versions[0], shadow=versions[1])
    setting = Setting(ranker, lambda: live[0], loop_is_idle=nothing_to_do)
    loop = asyncio.get_running_loop()

    def work(turns: int) -> None:
        spin(0.005)
        if turns:
            loop.call_soon(work, turns - 1)

    loop.call_soon(work, 5)
    await setting.serve(RankRequest("4", IDS))
    await setting.settled()
    assert [outcome for outcome, _ in setting.outcomes] == ["skipped"]


async def test_a_busy_loop_leaves_the_shadow_less(ranker: Ranker, live: list[LiveSnapshot]) -> None:
    setting = Setting(ranker, lambda: live[0], budget=ShadowBudget(min_idle_share=0.1))
    worked_s, shadow = 0.0, setting.shadow
    setting.worked_s = lambda: worked_s
    shadow._idle_share()
    began = time.perf_counter()
    spin(0.05)
    worked_s += time.perf_counter() - began
    assert shadow._idle_share() < 0.8
    await asyncio.sleep(0.05)
    assert shadow._idle_share() > 0.8
    worked_s += 10
    assert shadow._idle_share() == 0.1


async def test_the_share_is_what_was_asked_for(
    ranker: Ranker, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    live[0] = LiveSnapshot(stable=versions[0], shadow=versions[1])
    answer = await ranker.rank(RankRequest("4", IDS), time.perf_counter() + 10)
    some, none = (Setting(ranker, lambda: live[0], share=share) for share in (0.3, 0.0))
    for setting in (some, none):
        setting.busy = True
        for _ in range(10_000):
            setting.shadow.on_ranked(RankRequest("4", IDS), answer)
    assert len(some.outcomes) == pytest.approx(3000, abs=200)
    assert none.outcomes == []


async def test_one_at_a_time_and_nothing_while_requests_are_at_work(setting: Setting) -> None:
    setting.slow.clear()
    for _ in range(3):
        await setting.serve(RankRequest("4", IDS))
    assert [outcome for outcome, _ in setting.outcomes] == ["skipped", "skipped"]
    setting.slow.set()
    await setting.settled()
    setting.busy = True
    await setting.serve(RankRequest("4", IDS))
    setting.busy = False
    answer = await setting.ranker.rank(RankRequest("4", IDS), time.perf_counter() + 10)
    setting.shadow.on_ranked(RankRequest("4", IDS), answer)
    setting.busy = True  # a request comes in before the shadow's turn
    await setting.settled()
    assert [outcome for outcome, _ in setting.outcomes] == ["skipped", "skipped", "compared", "skipped", "skipped"]
    assert len(setting.requests) == 1


async def test_its_share_of_the_time_is_bounded(
    ranker: Ranker, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    live[0] = LiveSnapshot(stable=versions[0], shadow=versions[1])
    setting = Setting(ranker, lambda: live[0], budget=replace(UNBOUNDED, busy_share=0.05))
    began = time.perf_counter()
    while len(setting.held_s) < 5:
        await setting.serve(RankRequest("4", IDS))
        await setting.settled()
    elapsed_s = time.perf_counter() - began
    assert sum(setting.held_s[:-1]) <= 0.05 * elapsed_s, "the last has not been waited for"


async def test_a_shadow_that_raises_is_counted_and_hurts_nobody(setting: Setting, versions: list[Artifact]) -> None:
    setting.fails = RuntimeError("index out of range")
    await setting.serve(RankRequest("4", IDS))
    await setting.settled()
    setting.fails = None
    await setting.serve(RankRequest("4", IDS))
    assert [outcome for outcome, _ in setting.outcomes] == ["failed", "skipped"], "left alone for a while"
    assert setting.monitor.stats()["shadow", versions[1].version].errors == 1


async def test_nothing_is_compared_with_no_shadow_itself_or_an_answer_that_is_broken(
    setting: Setting, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    answer = await setting.serve(RankRequest("4", IDS, model="shadow"))
    answer.degraded.append(NOT_FINITE)
    live[0] = LiveSnapshot(stable=versions[2], shadow=versions[1])
    setting.shadow.on_ranked(RankRequest("4", IDS), answer)
    live[0] = LiveSnapshot(stable=versions[0])
    await setting.serve(RankRequest("4", IDS))
    await setting.settled()
    assert (setting.outcomes, setting.requests) == ([], [])
    assert setting.shadow.stats() is None


async def test_a_shadow_that_changes_meanwhile_is_skipped_and_the_new_one_begins_at_nothing(
    setting: Setting, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    await setting.serve(RankRequest("4", IDS))
    await setting.settled()
    for now in (LiveSnapshot(stable=versions[0], shadow=versions[2]), LiveSnapshot(stable=versions[0])):
        live[0] = LiveSnapshot(stable=versions[0], shadow=versions[1])
        await setting.serve(RankRequest("4", IDS))
        live[0] = now
        await setting.settled()
    assert [outcome for outcome, _ in setting.outcomes] == ["compared", "skipped", "skipped"]
    live[0] = LiveSnapshot(stable=versions[0], shadow=versions[2])
    await setting.serve(RankRequest("4", IDS))
    await setting.settled()
    stats = setting.shadow.stats()
    assert stats is not None
    assert (stats.version, stats.compared) == (versions[2].version, 1)


async def test_a_shadow_is_attached_compared_swapped_and_freed_as_any_other_label_is(
    store: ModelStore, features: MemoryFeatureStore
) -> None:
    cache = ItemCache(capacity=256)
    await features.start(cache)
    warmup = Warmup(features, cache, CacheRefresher(features, cache, fill=True), max_candidates=50)
    alive: weakref.WeakSet[Artifact] = weakref.WeakSet()
    alive_counts: list[int] = []

    async def prepare(artifact: Artifact) -> None:
        alive.add(artifact)
        alive_counts.append(len(alive))
        await warmup.prepare(artifact)

    lifecycle = Lifecycle(store, prepare=prepare, retire=warmup.retire, grace_s=0.02)
    ranker = Ranker(features, cache, lambda: lifecycle.live, store_timeout_s=1.0)
    setting = Setting(ranker, lambda: lifecycle.live)
    publish_tiny(store)
    for seed in range(1, 5):
        version = publish_tiny(store, seed, labels=("shadow",))
        await lifecycle.refresh()
        assert lifecycle.status().versions == {"stable": 1, "shadow": version}
        await setting.serve(RankRequest("4", IDS))
        await setting.settled()
        stats = setting.shadow.stats()
        assert stats is not None
        assert (stats.version, stats.compared) == (version, 1)
    assert [outcome for outcome, _ in setting.outcomes] == ["compared"] * 4
    assert alive_counts == [1, 2, 3, 3, 3], "stable, and two while the label changes hands"
    store.update_pointer(shadow=None)
    await lifecycle.refresh()
    await asyncio.sleep(0.1)
    assert cache.versions == len(alive) == 1
    await lifecycle.stop()


async def test_stopping_ends_what_is_at_work(setting: Setting) -> None:
    setting.slow.clear()
    await setting.serve(RankRequest("4", IDS))
    await asyncio.sleep(0)
    await setting.shadow.stop()
    assert setting.shadow._task is None
    await setting.shadow.stop()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40), st.randoms())
def test_a_comparison_with_itself_is_none_at_all(values: list[float], dice: object) -> None:
    score_N = np.sort(np.array(values, np.float32))[::-1]
    ids, order_N = RequestIds.from_strings([str(number) for number in range(len(values))]), np.arange(len(values))
    one = Ranking(None, "", ids, order_N, score_N, [], False, [], [])  # type: ignore[arg-type]
    same = compare(score_N, one)
    assert same.shadow_mean == same.answer_mean
    assert same.correlation is None if len(set(values)) == 1 else same.correlation == pytest.approx(1.0)
    upside_down = Ranking(None, "", ids, order_N, 1 - score_N, [], False, [], [])  # type: ignore[arg-type]
    opposite = compare(score_N, upside_down)
    if len(set((1 - score_N).tolist())) == len(set(values)) > 1:
        assert opposite.correlation == pytest.approx(-1.0)
    assert opposite.shadow_mean == pytest.approx(1 - opposite.answer_mean, abs=1e-6)
