"""Tests of POST /rank over a ranking service whose answers the test sets: what is read, written and counted."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from app.api.key_rates import KeyRates
from app.api.middleware import Edge
from app.api.openapi import REQUEST_HEADERS
from app.api.rank import RankEndpoint
from app.errors import DeadlinePassed, Overloaded
from app.features.request_ids import RequestIds
from app.header_keys import KnownKeys
from app.observability.metrics import STAGES, Metrics
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.runtime.loop_pacer import SliceTurns
from tests.api.fakes import client

pytestmark = pytest.mark.anyio

BODY = {"user_id": "42", "item_ids": ["10", "20"]}
LARGE = 500
"""Bytes from which on the fake service decodes a body in slices."""


class FakeRankService:
    """Decodes the request, then ranks its items in order, or raises what the test sets."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.received: list[tuple[RankRequest, float]] = []

    async def rank(
        self,
        decode: Callable[[], RankRequest],
        deadline_s: float,
        *,
        received_at: float,
        size: int,
        decode_in_slices: Callable[[], Awaitable[RankRequest]],
    ) -> Ranking:
        request = decode() if size < LARGE else await decode_in_slices()
        self.received.append((request, deadline_s))
        if self.error is not None:
            raise self.error
        artifact: Any = SimpleNamespace(manifest=SimpleNamespace(name="deepfm"), version=7)
        count = len(request.item_ids)
        return Ranking(
            artifact=artifact,
            label="stable",
            candidates=RequestIds.from_strings(request.item_ids),
            order=np.arange(count),
            scores=np.linspace(0.5, 0.25, count, dtype=np.float32),
            degraded=[],
            missing_user=False,
            missing_items=[],
            explanations=[],
            request_id=request.request_id,
        )


@pytest.fixture
def service() -> FakeRankService:
    return FakeRankService()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def edge(service: FakeRankService, metrics: Metrics, *, key_rates: KeyRates | None = None, **options: Any) -> Edge:
    ranking: Any = service
    endpoint = RankEndpoint(
        ranking,
        metrics,
        max_candidates=100,
        max_body_bytes=5000,
        deadline_s=1.0,
        turns=SliceTurns(),
        key_rates=key_rates,
    )
    return Edge(endpoint, **{"max_body_bytes": 1000, "body_timeout_s": 5.0, **options})


def answers(metrics: Metrics) -> dict[str, str]:
    """HTTP status to the number of answers that were counted."""
    text = metrics.render()[0].decode()
    return dict(re.findall(r'ctr_rank_requests_total\{status="(\d+)",version="\d*"\} (\S+)', text))


async def test_an_answer_has_its_headers_and_is_counted(service: FakeRankService, metrics: Metrics) -> None:
    async with client(edge(service, metrics)) as http:
        response = await http.post("/rank", json={**BODY, "request_id": "of-the-body"})
    assert response.status_code == 200
    assert response.json()["request_id"] == "of-the-body"
    assert [item["item_id"] for item in response.json()["items"]] == ["10", "20"]
    assert response.headers["x-model-version"] == "7"
    assert [part.split(";")[0].strip() for part in response.headers["server-timing"].split(",")] == list(STAGES)
    assert answers(metrics) == {"200": "1.0"}


EFFECTS: dict[str, tuple[str, Callable[[httpx.Response], bool]]] = {
    "X-Request-ID": ("abc-1", lambda response: response.headers["x-request-id"] == "abc-1"),
    "X-Request-Timeout-Ms": ("soon", lambda response: response.status_code == 422),
    "X-API-Key": ("a wrong key", lambda response: response.status_code == 401),
}
"""Documented header to a value, and what the service does because of it."""


async def test_each_documented_request_header_is_read(service: FakeRankService, metrics: Metrics) -> None:
    assert set(EFFECTS) == {*REQUEST_HEADERS, "X-API-Key"}
    async with client(edge(service, metrics, api_keys=KnownKeys(["key"]))) as http:
        for name, (value, has_effect) in EFFECTS.items():
            without = await http.post("/rank", json=BODY, headers={"X-API-Key": "key"})
            assert without.status_code == 200
            assert not has_effect(without), name
            assert has_effect(await http.post("/rank", json=BODY, headers={"X-API-Key": "key", name: value})), name


async def test_the_client_may_ask_for_less_time_only(service: FakeRankService, metrics: Metrics) -> None:
    async with client(edge(service, metrics)) as http:
        for sent in ("250", "5000"):
            await http.post("/rank", json=BODY, headers={"X-Request-Timeout-Ms": sent})
    assert [deadline_s for _, deadline_s in service.received] == [0.25, 1.0]


async def test_a_refusal_is_a_problem_and_counted_by_its_status(service: FakeRankService, metrics: Metrics) -> None:
    async with client(edge(service, metrics)) as http:
        for error, status in ((Overloaded(), 503), (DeadlinePassed(), 504)):
            service.error = error
            response = await http.post("/rank", json=BODY)
            assert response.status_code == status
            assert response.headers["content-type"] == "application/problem+json"
        assert (await http.post("/rank", content=b"{")).status_code == 400
    assert answers(metrics) == {"503": "1.0", "504": "1.0", "400": "1.0"}


async def test_a_key_over_its_rate_is_told_when_to_come_back_and_others_are_answered(
    service: FakeRankService, metrics: Metrics
) -> None:
    rates = KeyRates(0.1)
    async with client(edge(service, metrics, api_keys=KnownKeys(["one", "other"]), key_rates=rates)) as http:
        statuses = []
        for key in ("one", "one", "other", "wrong", "wrong"):
            response = await http.post("/rank", json=BODY, headers={"X-API-Key": key})
            statuses.append(response.status_code)
            if response.status_code == 429:
                assert 1 <= int(response.headers["retry-after"]) <= 10
                assert response.json()["type"] == "urn:ctr-serving:problem:rate-limited"
    assert statuses == [200, 429, 200, 401, 401]
    assert 'ctr_rejected_total{reason="rate_limited"} 1.0' in metrics.render()[0].decode()


async def test_a_gzip_body_is_read(service: FakeRankService, metrics: Metrics) -> None:
    async with client(edge(service, metrics)) as http:
        for coding, encode in (("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("identity", bytes), ("", bytes)):
            body = encode(json.dumps(BODY).encode())
            response = await http.post("/rank", content=body, headers={"Content-Encoding": coding})
            assert response.status_code == 200, coding
    assert [request.item_ids for request, _ in service.received] == [["10", "20"]] * 4


async def test_another_coding_is_refused_with_the_one_that_is_read(service: FakeRankService, metrics: Metrics) -> None:
    async with client(edge(service, metrics)) as http:
        for coding in ("deflate", "br", "zstd", "gzip, gzip", "compress", "nonsense"):
            response = await http.post("/rank", json=BODY, headers={"Content-Encoding": coding})
            assert response.status_code == 415, coding
            assert response.headers["accept-encoding"] == "gzip"
            assert response.json()["type"].endswith(":unsupported-media")
    assert answers(metrics) == {"415": "6.0"}


async def test_any_content_type_is_read_as_json(service: FakeRankService, metrics: Metrics) -> None:
    body = json.dumps(BODY).encode()
    async with client(edge(service, metrics)) as http:
        for content_type in (
            "application/json; charset=utf-8",
            "application/x-www-form-urlencoded",
            "text/plain",
            None,
        ):
            headers = {} if content_type is None else {"Content-Type": content_type}
            assert (await http.post("/rank", content=body, headers=headers)).status_code == 200, content_type
        form = await http.post("/rank", data={"user_id": "1", "item_ids": "2"})
        assert form.status_code == 400
        assert "a form; send JSON" in form.json()["detail"]


async def test_an_unexpected_error_is_a_500_and_counted(service: FakeRankService, metrics: Metrics) -> None:
    service.error = ValueError("a bug")
    async with client(edge(service, metrics)) as http:
        assert (await http.post("/rank", json=BODY)).status_code == 500
    assert answers(metrics) == {"500": "1.0"}


async def test_a_client_that_leaves_is_not_counted(service: FakeRankService, metrics: Metrics) -> None:
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/rank", "headers": []}
    await edge(service, metrics)(scope, receive, send)
    await asyncio.sleep(0)
    assert sent == []
    assert answers(metrics) == {}
