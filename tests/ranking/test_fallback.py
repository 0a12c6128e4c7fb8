"""Tests that a version which fails to score fails no request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.errors import DeadlinePassed, EncodingError, InvalidRequest
from app.ranking.degraded import MODEL_FALLBACK
from app.ranking.fallback import Fallback
from app.ranking.monitor import PINNED, ModelMonitor
from app.ranking.ranker import Ranker, Ranking
from app.ranking.request import RankRequest
from app.ranking.routing import arm, route
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LiveSnapshot

IDS = [str(number) for number in range(10)]
CANARY_USER = next(str(n) for n in range(100) if arm(str(n)) < 0.5)
STABLE_USER = next(str(n) for n in range(100) if arm(str(n)) >= 0.5)


class Failing:
    """A ranker of which one version raises."""

    def __init__(self, ranker: Ranker, live: list[LiveSnapshot], bad: dict[int, Exception]) -> None:
        self.ranker, self.live, self.bad = ranker, live, bad
        self.after: Callable[[], Any] = lambda: None

    async def rank(self, request: RankRequest, due: float) -> Ranking:
        version = route(self.live[0], request.user_id, request.model).artifact.version
        if version in self.bad:
            self.after()
            raise self.bad[version]
        return await self.ranker.rank(request, due)


class Service:
    def __init__(self, ranker: Ranker, live: list[LiveSnapshot], **bad: Exception) -> None:
        self.monitor = ModelMonitor(lambda: live[0])
        self.failing = Failing(ranker, live, {int(name[1:]): error for name, error in bad.items()})
        self.fallback = Fallback(self.failing, lambda: live[0], self.monitor)

    async def ask(self, request: RankRequest) -> Ranking:
        due, live = time.perf_counter() + 10, self.fallback.snapshot()
        try:
            return await self.failing.rank(request, due)
        except Exception as error:
            return await self.fallback.rank(request, due, error, live)

    def errors(self) -> dict[tuple[str, int], int]:
        return {key: stats.errors for key, stats in self.monitor.stats().items()}


@pytest.fixture
def canary(live: list[LiveSnapshot], versions: list[Artifact]) -> None:
    live[0] = LiveSnapshot(stable=versions[0], canary=versions[1], canary_share=0.5)


@pytest.mark.usefixtures("canary")
async def test_stable_answers_for_a_canary_that_raises(ranker: Ranker, live: list[LiveSnapshot]) -> None:
    service = Service(ranker, live, v2=RuntimeError("index out of range"))
    with capture_logs() as logs:
        answer = await service.ask(RankRequest(CANARY_USER, IDS))
        await service.ask(RankRequest(CANARY_USER, IDS))
    assert (answer.label, answer.artifact.version, answer.degraded) == ("stable", 1, [MODEL_FALLBACK])
    plain = await ranker.rank(RankRequest(CANARY_USER, IDS, model="stable"), time.perf_counter() + 10)
    assert answer.item_ids == plain.item_ids
    assert answer.scores.tolist() == plain.scores.tolist()
    assert service.errors() == {("canary", 2): 2}
    assert [line["event"] for line in logs] == ["scoring_failed"], "once a second, not once a request"
    assert (await service.ask(RankRequest(STABLE_USER, IDS))).degraded == []


@pytest.mark.usefixtures("canary")
async def test_a_pinned_version_that_raises_is_answered_by_stable_and_counted_apart(
    ranker: Ranker, live: list[LiveSnapshot]
) -> None:
    service = Service(ranker, live, v2=RuntimeError())
    for model in ("canary", 2):
        assert (await service.ask(RankRequest(STABLE_USER, IDS, model=model))).artifact.version == 1
    assert service.errors() == {(PINNED, 2): 2}


@pytest.mark.usefixtures("canary")
async def test_a_request_in_flight_when_the_canary_goes_is_answered_too(
    ranker: Ranker, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    service = Service(ranker, live, v2=RuntimeError())

    def gone() -> None:
        live[0] = LiveSnapshot(stable=versions[0])

    service.failing.after = gone
    assert (await service.ask(RankRequest(CANARY_USER, IDS))).artifact.version == 1
    assert service.errors() == {}, "nobody knows any more who failed"


@pytest.mark.usefixtures("canary")
async def test_a_canary_that_took_the_place_of_the_failing_one_is_not_blamed(
    ranker: Ranker, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    service = Service(ranker, live, v2=RuntimeError())

    def replaced() -> None:
        live[0] = LiveSnapshot(stable=versions[0], canary=versions[2], canary_share=0.5)

    service.failing.after = replaced
    answer = await service.ask(RankRequest(CANARY_USER, IDS))
    assert (answer.artifact.version, answer.degraded) == (1, [MODEL_FALLBACK])
    assert service.errors() == {}


@pytest.mark.usefixtures("canary")
async def test_where_stable_fails_too_the_first_error_stands(ranker: Ranker, live: list[LiveSnapshot]) -> None:
    service = Service(ranker, live, v1=ValueError("stable"), v2=RuntimeError("canary"))
    for user, error in ((CANARY_USER, RuntimeError), (STABLE_USER, ValueError)):
        with pytest.raises(error):
            await service.ask(RankRequest(user, IDS))
    assert service.errors() == {("canary", 2): 1, ("stable", 1): 1}


@pytest.mark.usefixtures("canary")
async def test_a_bad_request_is_not_the_versions_fault(ranker: Ranker, live: list[LiveSnapshot]) -> None:
    service = Service(ranker, live)
    for user in (CANARY_USER, STABLE_USER):
        with pytest.raises(EncodingError):
            await service.ask(RankRequest(user, IDS, context={"session_length": "long"}))
        with pytest.raises(InvalidRequest, match="not live"):
            await service.ask(RankRequest(user, IDS, model=99))
    assert service.errors() == {}


@pytest.mark.usefixtures("canary")
async def test_a_field_that_only_the_canary_cannot_read_is_its_fault(ranker: Ranker, live: list[LiveSnapshot]) -> None:
    service = Service(ranker, live, v2=EncodingError("hour", "not a number"))
    assert (await service.ask(RankRequest(CANARY_USER, IDS))).artifact.version == 1
    assert service.errors() == {("canary", 2): 1}


@pytest.mark.usefixtures("canary")
async def test_a_passed_deadline_stays_one(ranker: Ranker, live: list[LiveSnapshot]) -> None:
    service = Service(ranker, live)
    due = time.perf_counter() + 10
    with pytest.raises(DeadlinePassed):
        await service.fallback.rank(RankRequest(CANARY_USER, IDS), due, DeadlinePassed(), live[0])
    assert service.errors() == {}
