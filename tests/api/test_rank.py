"""POST /rank without a model: in what order requests that meet are worked on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.types import Message

from app.api.rank import TOGETHER, RankEndpoint
from app.ranking.admission import Admission
from app.ranking.ranker import Query, Ranking
from app.ranking.rescue import Rescue
from app.ranking.shadow import Shadow
from app.ranking.watch import Watch
from app.registry.live import Live
from app.telemetry import Metrics

pytestmark = pytest.mark.anyio


class Ranker:
    """Ranks once the features have come, for all at the same moment."""

    def __init__(self, happened: list[str]) -> None:
        self.features = asyncio.Event()
        self._happened = happened

    async def rank(self, query: Query, due: float) -> Ranking:
        await self.features.wait()
        self._happened.append(f"{query.user_id} scored")
        artifact: Any = SimpleNamespace(version=1, manifest=SimpleNamespace(name="deepfm"))
        asked: Any = query.item_ids
        return Ranking(artifact, "stable", asked, np.zeros(1, np.int64), np.ones(1, np.float32), [], False, [], [])


async def order(requests: int) -> list[str]:
    happened: list[str] = []
    ranker = Ranker(happened)

    def live() -> Live:
        return Live()

    watch = Watch(live)
    endpoint = RankEndpoint(
        ranker,  # type: ignore[arg-type]
        Admission(100),
        Metrics(),
        watch,
        Rescue(ranker, live, watch),
        Shadow(ranker, live, watch, share=0.0, idle=lambda: False),
        max_candidates=10,
        deadline_s=1.0,
    )

    async def request(number: int) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b'{"user_id":"%d","item_ids":["1"]}' % number}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] == 200
                happened.append(f"{number} answered")

        await endpoint({"type": "http", "headers": [], "state": {"request_id": "x"}}, receive, send)

    asked = [asyncio.ensure_future(request(number)) for number in range(requests)]
    await asyncio.sleep(0.01)
    assert not happened
    ranker.features.set()
    await asyncio.gather(*asked)
    return happened


async def test_few_requests_are_answered_as_soon_as_they_are_scored() -> None:
    assert await order(2) == ["0 scored", "0 answered", "1 scored", "1 answered"]


async def test_many_are_scored_one_after_another_and_then_answered() -> None:
    numbers = range(TOGETHER)
    assert await order(TOGETHER) == [f"{n} {done}" for done in ("scored", "answered") for n in numbers]
