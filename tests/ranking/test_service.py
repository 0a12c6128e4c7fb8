"""Tests of answering a request without HTTP: admission, fallback, canary protection, observers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from app.errors import DeadlinePassed, NotJson, Overloaded, RequestError
from app.ranking.admission import HEAVY_LIMIT, Admission
from app.ranking.canary import CanaryFailure, CanaryLimits
from app.ranking.degraded import MODEL_FALLBACK
from app.ranking.fallback import Fallback
from app.ranking.monitor import ModelMonitor
from app.ranking.ranker import Ranker, Ranking
from app.ranking.request import RankRequest
from app.ranking.routing import arm, route
from app.ranking.service import LARGE_BODY, LARGE_RATIO, LEAST_LARGE, BodySizes, RankService
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.runtime.loop_pacer import SliceTurns

IDS = [str(number) for number in range(10)]
CANARY_USER = next(str(n) for n in range(100) if arm(str(n)) < 0.5)
LIMITS = CanaryLimits(min_requests=20, error_rate=0.1, non_finite_rate=0.1, ctr_ratio=1.5, drift=0.3)


class Core:
    """A `RankService` over real versions, whose canary fails where the test says so."""

    def __init__(self, ranker: Ranker, live: list[LiveSnapshot], *, max_inflight: int = 2) -> None:
        self.ranker, self.live = ranker, live
        self.canary_fails = False
        self.open = asyncio.Event()
        self.open.set()
        self.seen: list[tuple[RankRequest, Ranking]] = []
        self.refused: list[RequestError] = []
        self.withdrawn: list[tuple[int, str]] = []
        self.monitor = ModelMonitor(lambda: live[0], LIMITS, self._withdraw)
        self.admission = Admission(max_inflight, 10.0)
        self.service = RankService(
            self,
            self.admission,
            Fallback(self, lambda: live[0], self.monitor),
            observers=(self.monitor.on_ranked, lambda request, ranking: self.seen.append((request, ranking))),
            on_refused=self.refused.append,
        )

    async def rank(self, request: RankRequest, due: float) -> Ranking:
        await self.open.wait()
        if self.canary_fails and route(self.live[0], request.user_id, request.model).label == "canary":
            raise RuntimeError("index out of range")
        return await self.ranker.rank(request, due)

    def _withdraw(self, version: int, failure: CanaryFailure) -> None:
        self.withdrawn.append((version, failure.reason))
        self.live[0] = LiveSnapshot(stable=self.live[0].stable)

    async def ask(self, decode: Callable[[], RankRequest] | None = None, seconds: float = 10) -> Ranking:
        return await self.service.rank(decode or (lambda: RankRequest("1", IDS)), seconds)


@pytest.fixture
def core(ranker: Ranker, live: list[LiveSnapshot], versions: list[Artifact]) -> Core:
    live[0] = LiveSnapshot(stable=versions[0], canary=versions[1], canary_share=0.5)
    return Core(ranker, live)


async def test_a_request_is_ranked_and_observed(core: Core) -> None:
    request = RankRequest("1", IDS, request_id="abc")
    ranking = await core.ask(lambda: request)
    assert sorted(ranking.item_ids) == sorted(IDS)
    assert ranking.request_id == "abc"
    assert ranking.decode_s >= 0
    assert core.seen == [(request, ranking)]
    assert core.admission.inflight == 0


async def test_an_observer_that_raises_costs_neither_the_answer_nor_the_observers_after_it(
    core: Core, live: list[LiveSnapshot]
) -> None:
    seen: list[Ranking] = []

    def failing(request: RankRequest, ranking: Ranking) -> None:
        raise RuntimeError("no such label")

    service = RankService(
        core,
        core.admission,
        Fallback(core, lambda: live[0], core.monitor),
        observers=(failing, lambda request, ranking: seen.append(ranking)),
    )
    with capture_logs() as logs:
        answers = [await service.rank(lambda: RankRequest("1", IDS), 10) for _ in range(3)]
    assert seen == answers
    assert [entry["event"] for entry in logs] == ["rank_observer_failed"], "once a second"


async def test_a_cancelled_request_leaves_its_place(core: Core) -> None:
    core.open.clear()
    for _ in range(5):
        request = asyncio.create_task(core.ask())
        await asyncio.sleep(0)
        assert core.admission.inflight == 1
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert core.admission.inflight == 0


async def test_more_requests_than_are_admitted_are_refused_before_they_are_decoded(core: Core) -> None:
    core.open.clear()
    at_work = [asyncio.create_task(core.ask()) for _ in range(2)]
    await asyncio.sleep(0)

    def decode() -> RankRequest:
        raise AssertionError("it was decoded")

    with pytest.raises(Overloaded):
        await core.ask(decode)
    core.open.set()
    await asyncio.gather(*at_work)
    assert [type(error) for error in core.refused] == [Overloaded]
    await core.ask()


async def test_a_request_that_cannot_be_decoded_leaves_its_place(core: Core) -> None:
    def decode() -> RankRequest:
        raise NotJson

    for _ in range(3):
        with pytest.raises(NotJson):
            await core.ask(decode)
    assert [type(error) for error in core.refused] == [NotJson] * 3
    assert core.seen == []


async def test_the_deadline_counts_from_the_call(core: Core) -> None:
    with pytest.raises(DeadlinePassed):
        await core.ask(seconds=0.0)
    assert core.admission.inflight == 0


async def test_what_a_request_has_waited_is_taken_from_its_time(core: Core) -> None:
    def decode() -> RankRequest:
        raise AssertionError("it was decoded")

    long_ago = time.perf_counter() - 100
    with pytest.raises(DeadlinePassed):
        await core.service.rank(decode, 100, received_at=long_ago)
    assert core.admission.inflight == 0
    await core.service.rank(lambda: RankRequest("1", IDS), 200, received_at=long_ago)


async def test_one_heavy_request_too_many_is_refused_and_the_others_are_answered(core: Core) -> None:
    core.admission.limit = 100
    core.open.clear()
    heavy = RankRequest("1", IDS, explain=True)
    at_work = [asyncio.create_task(core.ask(lambda: heavy)) for _ in range(HEAVY_LIMIT)]
    await asyncio.sleep(0)
    assert core.admission.heavy == HEAVY_LIMIT
    with pytest.raises(Overloaded):
        await core.ask(lambda: heavy)
    usual = asyncio.create_task(core.ask())
    await asyncio.sleep(0)
    core.open.set()
    await asyncio.gather(*at_work, usual)
    assert (core.admission.inflight, core.admission.heavy) == (0, 0)
    await core.ask(lambda: heavy)


async def test_a_large_body_is_decoded_in_a_turn_of_its_own(core: Core) -> None:
    decoded: list[str] = []

    def decode(name: str) -> RankRequest:
        decoded.append(name)
        return RankRequest("1", IDS)

    await asyncio.gather(
        core.service.rank(lambda: decode("large"), 10, size=10 * LARGE_BODY),
        core.service.rank(lambda: decode("small"), 10, size=100),
    )
    assert decoded == ["small", "large"]


async def test_what_is_large_is_decoded_and_ranked_in_slices(core: Core) -> None:
    async def decode_in_slices() -> RankRequest:
        await SliceTurns().next()
        return RankRequest("1", IDS)

    def decode() -> RankRequest:
        raise AssertionError("it was decoded at once")

    await core.service.rank(decode, 10, size=10 * LARGE_BODY, decode_in_slices=decode_in_slices)
    await core.ask(lambda: RankRequest("1", IDS, explain=True))
    await core.ask()
    assert [request.in_slices for request, _ in core.seen] == [True, True, False]


def test_a_body_is_large_beside_usual_ones_and_not_among_its_like() -> None:
    sizes = BodySizes()
    assert not sizes.is_large(LARGE_BODY), "nothing is known yet"
    assert sizes.is_large(LARGE_BODY + 1)
    for number in range(2000):  # a third of them large
        large = sizes.is_large(20_000) if number % 3 == 0 else sizes.is_large(700)
    assert sizes.is_large(20_000)
    assert not sizes.is_large(LEAST_LARGE)
    assert not large
    for _ in range(2000):
        sizes.is_large(20_000)
    assert not sizes.is_large(round(LARGE_RATIO * 20_000 / 4)), "where most are as large none waits for others"


async def test_requests_of_large_bodies_are_no_work_before_others(core: Core) -> None:
    core.admission.limit = 100
    core.open.clear()
    large = [asyncio.create_task(core.service.rank(lambda: RankRequest("1", IDS), 10, size=10 * LARGE_BODY))]
    await asyncio.sleep(0)
    assert core.admission.inflight == 1
    assert core.admission._backlog == pytest.approx(0.0, abs=1e-9)
    core.open.set()
    await asyncio.gather(*large)
    assert core.admission.inflight == 0
    assert core.admission._backlog == pytest.approx(0.0, abs=1e-9)


async def test_stable_answers_what_a_canary_cannot_and_the_canary_is_withdrawn(core: Core) -> None:
    request = RankRequest(CANARY_USER, IDS)
    assert (await core.ask(lambda: request)).label == "canary"
    core.canary_fails = True
    answers = [await core.ask(lambda: request) for _ in range(10)]
    assert {(answer.label, answer.artifact.version) for answer in answers} == {("stable", 1)}
    assert answers[0].degraded == [MODEL_FALLBACK]
    assert core.withdrawn == [(2, "errors")]
    assert answers[-1].degraded == [], "stable is asked at once"


async def test_an_error_that_nobody_can_answer_for_is_raised_and_leaves_its_place(core: Core) -> None:
    core.ranker = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        await core.ask()
    assert core.admission.inflight == 0
    assert core.refused == []
