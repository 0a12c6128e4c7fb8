"""Orders that are drawn: for whom, from which seed, and what sees scores and what sees the order."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from app.events.event_queue import EventQueue
from app.events.impression_id import parse_impression_id
from app.events.item_references import ItemReferences
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.native.exploration import OrderDrawer
from app.ranking.batcher import Batcher
from app.ranking.degraded import MODEL_FALLBACK, NOT_FINITE, USER_UNAVAILABLE
from app.ranking.exploration import Explorer, seed_of
from app.ranking.fallback import Fallback
from app.ranking.impressions import ImpressionLog
from app.ranking.monitor import ModelMonitor
from app.ranking.ranker import Ranker, Ranking
from app.ranking.request import RankRequest
from app.ranking_policy import RankingPolicy, parse_label_policies
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LiveSnapshot
from tests.events.records import Impression, impressions_of

WIDE = "softmax:2"
"""A temperature at which the order is hardly ever that of the scores."""
IDS = [str(number) for number in range(30)]
TOP = 10


@pytest.fixture(params=[False, True], ids=["alone", "batched"])
async def core(
    request: pytest.FixtureRequest,
    features: MemoryFeatureStore,
    cache: ItemCache,
    live: list[LiveSnapshot],
    versions: list[Artifact],
) -> Core:
    await features.start(cache)
    for artifact in versions:
        await cache.attach(artifact)
    return Core(features, cache, live, batched=request.param)


class Core:
    """Rankers over one cache, with an event log whose records stay in the queue."""

    def __init__(
        self, features: MemoryFeatureStore, cache: ItemCache, live: list[LiveSnapshot], *, batched: bool
    ) -> None:
        self.features, self.live = features, live
        self.queue = EventQueue(10**6)
        self.references = ItemReferences(cache, self.queue)
        self.log = ImpressionLog(self.queue, self.references, TOP)
        cache.before_change = self.log.record_noted
        self.cache, self._batched = cache, batched

    def ranker(self, policies: str = "", share: float = 1.0) -> Ranker:
        return Ranker(
            self.features,
            self.cache,
            lambda: self.live[0],
            store_timeout_s=1.0,
            batcher=Batcher(64, max_wait_us=100.0) if self._batched else None,
            references=self.references,
            references_top=TOP,
            explorer=Explorer(parse_label_policies(policies), share) if policies else None,
        )

    async def ask(self, ranker: Ranker, **request: Any) -> Ranking:
        asked = RankRequest(**{"user_id": "4", "item_ids": IDS, **request})
        ranking = await ranker.rank(asked, time.perf_counter() + 10)
        self.log.on_ranked(asked, ranking)
        return ranking

    def recorded(self) -> list[Impression]:
        self.log.record_noted()
        return impressions_of(self.queue.take(10**6))


def scores(ranking: Ranking) -> dict[str, float]:
    return dict(zip(ranking.item_ids, ranking.scores.tolist(), strict=True))


@pytest.mark.parametrize("policy", [WIDE, "epsilon:0.5"])
@pytest.mark.parametrize("more", [{}, {"top_k": 5}, {"item_features": {"3": {"year": 1950}}}, {"explain": True}])
async def test_each_item_keeps_its_score_and_the_order_can_be_drawn_again(
    core: Core, policy: str, more: dict[str, Any]
) -> None:
    plain = await core.ask(core.ranker(), **{**more, "top_k": None})
    ranker = core.ranker(policy)
    for _ in range(100):
        drawn = await core.ask(ranker, **more)
        best = plain.scores[: len(drawn.scores)].tolist()
        assert scores(drawn).items() <= scores(plain).items()
        assert drawn.best_scores.tolist() == best
        if drawn.scores.tolist() != best:
            break
    else:
        pytest.fail("a hundred orders are that of the scores")
    assert drawn.exploration is not None
    assert drawn.impression_id is not None
    drawer, places = OrderDrawer(drawn.exploration.policy), len(drawn.order)
    order_K, _, propensity_K = drawer.draw(seed_of(drawn.impression_id), plain.scores, plain.order, places, places)
    assert order_K.tolist() == drawn.order.tolist()
    assert propensity_K.tolist() == drawn.exploration.propensities.tolist()
    assert len(drawn.explanations) == (20 if more.get("explain") else 0)


async def test_explanations_are_those_of_the_items_that_are_shown(core: Core) -> None:
    drawn = await core.ask(core.ranker(WIDE), explain=True)
    for score, explanation in zip(drawn.scores.tolist(), drawn.explanations, strict=False):
        assert explanation.logit is not None
        logit = explanation.calibration.scale * explanation.logit + explanation.calibration.offset
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(score, abs=1e-5)


async def test_the_record_has_policy_and_propensities_of_what_was_shown(core: Core) -> None:
    explored = [await core.ask(core.ranker(WIDE), top_k=top_k) for top_k in (None, 3, 20)]
    plain = await core.ask(core.ranker())
    *impressions, last = core.recorded()
    for ranking, impression in zip(explored, impressions, strict=True):
        assert ranking.exploration is not None
        assert impression.impression_id == ranking.impression_id
        assert (impression.policy, impression.policy_parameter) == ("softmax", 2.0)
        assert impression.propensities is not None
        assert impression.propensities.tolist() == ranking.exploration.propensities[:TOP].tolist()
        assert impression.scores.tolist() == ranking.scores[:TOP].tolist()
        assert abs(parse_impression_id(impression.impression_id).at_ms - impression.at_us // 1000) < 1000
    assert (last.impression_id, last.policy, last.policy_parameter) == (plain.impression_id, "", 0.0)
    assert last.propensities is None


async def test_the_monitor_sees_the_scores_that_an_order_of_scores_would_show(
    core: Core, versions: list[Artifact]
) -> None:
    """The means of a canary that explores and of stable would differ, though the scores do not."""
    ranker, plain = core.ranker(WIDE), core.ranker()
    monitor, reference = ModelMonitor(lambda: core.live[0]), ModelMonitor(lambda: core.live[0])
    request = RankRequest("4", IDS, top_k=4)
    for _ in range(5):
        monitor.on_ranked(request, await ranker.rank(request, time.perf_counter() + 10))
        reference.on_ranked(request, await plain.rank(request, time.perf_counter() + 10))
    assert monitor.stats() == reference.stats()


async def test_labels_have_their_own_policies_and_a_version_that_the_caller_names_has_none(
    core: Core, versions: list[Artifact]
) -> None:
    core.live[0] = LiveSnapshot(stable=versions[0], canary=versions[1], canary_share=0.5)
    ranker = core.ranker("canary=epsilon:0.5")
    seen = set()
    for user in range(30):
        ranking = await core.ask(ranker, user_id=str(user))
        seen.add(ranking.label)
        assert (ranking.exploration is not None) == (ranking.label == "canary")
        if ranking.exploration is not None:
            assert ranking.exploration.policy == RankingPolicy("epsilon", 0.5)
    assert seen == {"stable", "canary"}
    for model in ("canary", "stable", versions[1].version):
        assert (await core.ask(core.ranker(WIDE), model=model)).exploration is None


async def test_a_share_of_the_users_explores_and_a_user_always_or_never(core: Core) -> None:
    ranker = core.ranker(WIDE, share=0.5)
    explores = [
        [(await core.ask(ranker, user_id=str(user), item_ids=IDS[:2])).exploration is not None for user in range(60)]
        for _ in range(2)
    ]
    assert explores[0] == explores[1]
    assert 15 < sum(explores[0]) < 45
    guests = [
        (await core.ask(ranker, user_id=None, item_ids=IDS[:2], guest_arm=n / 60)).exploration is not None
        for n in range(60)
    ]
    assert 15 < sum(guests) < 45, "guests are spread by request"
    assert 5 < sum(guests[:30]) < 25, "and apart from the canary's share"


async def test_degraded_answers_explore_but_not_with_scores_that_are_no_numbers(
    core: Core, versions: list[Artifact]
) -> None:
    core.features.failing = True
    ranking = await core.ask(core.ranker(WIDE))
    assert USER_UNAVAILABLE in ranking.degraded
    assert ranking.exploration is not None
    core.features.failing = False
    await core.ask(core.ranker())
    core.cache.states(versions[0])[int(core.cache.find(["2"]).rows[0])] = torch.nan
    ranking = await core.ask(core.ranker(WIDE))
    assert ranking.degraded == [NOT_FINITE]
    assert ranking.exploration is None


async def test_what_stable_answers_for_a_failing_canary_is_not_drawn(core: Core, versions: list[Artifact]) -> None:
    class FailsOnce:
        """A ranker whose canary fails."""

        async def rank(self, request: RankRequest, due: float) -> Ranking:
            return await core.ranker(WIDE).rank(request, due)

    core.live[0] = LiveSnapshot(stable=versions[0], canary=versions[1], canary_share=1.0)
    fallback = Fallback(FailsOnce(), lambda: core.live[0], ModelMonitor(lambda: core.live[0]))
    request = RankRequest("4", IDS)
    ranking = await fallback.rank(request, time.perf_counter() + 10, RuntimeError("broken"), core.live[0])
    assert MODEL_FALLBACK in ranking.degraded
    assert ranking.exploration is None
