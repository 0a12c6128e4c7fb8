"""/health, /models, /metrics, the page and the OpenAPI document, with a service whose every state the test sets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio.to_thread
import jsonschema
import msgspec
import numpy as np
import pytest

from app.api.openapi import EXAMPLES
from app.api.schemas import RankBody, parse_rank
from app.errors import InvalidRequest
from app.ranking.shadow_stats import ShadowStats
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from app.registry.gate.gate_report import GateCheck, GateReport, write_report
from app.registry.lifecycle.snapshot import LiveSnapshot, Problem
from app.registry.store.model_store import ModelStore
from tests.api.fakes import FakeService, application, client
from tests.factories import publish_tiny

pytestmark = pytest.mark.anyio

KEPT = ("/rank", "/models", "/models/{version}/report")
"""The paths that ask for a key, where there are keys."""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    store = ModelStore(tmp_path_factory.mktemp("store"), "deepfm")
    return load(store.path(publish_tiny(store)))


@pytest.fixture
def service(store: ModelStore, artifact: Artifact) -> FakeService:
    """Everything is well and one version is live."""
    service = FakeService(store)
    service.lifecycle.live = LiveSnapshot(stable=artifact)
    return service


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics", "/models"])
async def test_what_a_route_needs_is_got_on_the_loop(
    path: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI calls what is not `async` on a thread, for which the interpreter is taken from usual requests."""

    async def run_sync(function: Callable[..., object], *arguments: object, **options: object) -> object:
        raise AssertionError(f"{function} is called on a thread")

    monkeypatch.setattr(anyio.to_thread, "run_sync", run_sync)
    async with client(application(service)) as http:
        assert (await http.get(path)).status_code == 200


async def test_health_when_all_is_well(service: FakeService, artifact: Artifact) -> None:
    async with client(application(service)) as http:
        response = await http.get("/health")
    body = response.json()
    assert response.status_code == 200
    assert (body["status"], body["reasons"]) == ("ok", [])
    assert (body["model"]["name"], body["model"]["version"]) == ("deepfm", 1)
    assert (body["model"]["labels"], body["model"]["sha256"]) == ({"stable": 1}, artifact.program_sha256)
    assert body["model"]["last_swap_at"] == "2017-07-14T02:40:00Z"
    assert body["features"] == {"connected": True, "detail": "127.0.0.1:6379", "cached_items": 12}
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("lack", ["connected", "readable"])
async def test_health_without_a_store_is_degraded_but_ranks(lack: str, service: FakeService) -> None:
    setattr(service, lack, False)
    async with client(application(service)) as http:
        response = await http.get("/health")
        ready = await http.get("/health/ready")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    assert response.json()["reasons"] == ["features_unavailable"]
    assert ready.status_code == 200, "a restart would not bring the store back"


async def test_health_names_a_refused_version_and_keeps_ranking(service: FakeService) -> None:
    service.lifecycle.problems = (Problem("stable", 2, "golden", "golden request 0 differs by 0.1"),)
    service.lifecycle.live = replace(service.lifecycle.live, fallback=True)
    async with client(application(service)) as http:
        body = (await http.get("/health")).json()
    assert body["status"] == "degraded"
    assert body["reasons"] == ["model_fallback", "stable_refused: golden"]
    assert body["model"]["problems"] == [
        {"label": "stable", "version": 2, "reason": "golden", "message": "golden request 0 differs by 0.1"}
    ]


async def test_health_names_a_live_version_whose_files_are_damaged(service: FakeService) -> None:
    service.lifecycle.damages = {1: "model.pt is not there"}
    async with client(application(service)) as http:
        response = await http.get("/health")
        ready = await http.get("/health/ready")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    assert response.json()["reasons"] == ["version_1_files_damaged"]
    assert response.json()["model"]["damages"] == {"1": "model.pt is not there"}
    assert ready.status_code == 200, "it serves, and a restart would end that"


async def test_an_event_log_that_is_not_written_or_delivered_degrades_and_ranks_on(service: FakeService) -> None:
    service.problems_of_events = ["events_not_delivered"]
    async with client(application(service)) as http:
        response, ready = await http.get("/health"), await http.get("/health/ready")
    assert (response.status_code, ready.status_code) == (200, 200)
    assert (response.json()["status"], response.json()["reasons"]) == ("degraded", ["events_not_delivered"])


async def test_health_without_a_model_is_unavailable(service: FakeService) -> None:
    service.lifecycle.live = LiveSnapshot()
    async with client(application(service)) as http:
        response = await http.get("/health")
        ready = await http.get("/health/ready")
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    assert "no_model_live" in response.json()["reasons"]
    assert response.json()["model"]["version"] is None
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "reasons": ["no_model_live"]})


async def test_a_draining_process_is_healthy_but_not_ready(service: FakeService) -> None:
    service.draining = True
    async with client(application(service)) as http:
        response = await http.get("/health")
        ready = await http.get("/health/ready")
    assert (response.status_code, response.json()["reasons"]) == (200, ["draining"])
    assert (ready.status_code, ready.json()["reasons"]) == (503, ["draining"])


async def test_live_looks_at_nothing(service: FakeService) -> None:
    app = application(service)
    del app.state.service
    async with client(app) as http:
        assert (await http.get("/health/live")).json() == {"alive": True}


async def test_metrics_are_prometheus_text(service: FakeService) -> None:
    service.metrics.observe_request((0.001,) * 5, 0.005, 3, 1)
    async with client(application(service)) as http:
        response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert 'ctr_rank_requests_total{status="200",version="1"} 1.0' in response.text


async def test_models_lists_versions_labels_and_what_is_live(service: FakeService, artifact: Artifact) -> None:
    store = service.model_store
    for labels in (("stable",), (), ("stable",), ("canary",)):
        publish_tiny(store, labels=labels, share=0.1)
    (store.path(2) / "manifest.json").write_text("{")
    slow = GateCheck("latency", False, "latency", "10 times as slow", {"request_ratio": 10.0}, comparison=True)
    write_report(store.path(3), GateReport(3, "0" * 64, 1, "2026-01-01T00:00:00+00:00", False, False, 2.5, [slow]))
    async with client(application(service)) as http:
        body = (await http.get("/models")).json()
        newest = (await http.get("/models", params={"limit": 1})).json()
    assert body["model"] == "deepfm"
    assert body["live"] == {"stable": 1}
    assert body["serving"] == {"stable": 3, "canary": {"version": 4, "share": 0.1}}
    versions = {version["version"]: version for version in body["versions"]}
    assert list(versions) == [4, 3, 2, 1], "newest first"
    assert (versions[3]["labels"], versions[3]["live"]) == (["stable"], [])
    assert (versions[4]["labels"], versions[4]["live"]) == (["canary"], [])
    assert (versions[1]["labels"], versions[1]["live"]) == ([], ["stable"])
    assert versions[1]["metrics"] == store.manifest(1).metrics
    assert versions[1]["created_at"] == store.manifest(1).created_at
    assert (
        versions[1]["example_items"]
        == list(dict.fromkeys(i for g in store.manifest(1).golden for i in g.item_ids))[:20]
    )
    assert (versions[1]["dataset"], versions[2]["example_items"]) == (store.manifest(1).data.get("dataset"), [])
    assert versions[2]["error"]
    assert versions[1]["error"] is None
    assert versions[1]["gate"] is None
    assert (versions[3]["gate"]["passed"], versions[3]["gate"]["checks"][0]["reason"]) == (False, "latency")
    assert [version["version"] for version in newest["versions"]] == [4, 3, 1], "those in use are always listed"


async def test_models_tells_what_live_versions_did(service: FakeService, artifact: Artifact) -> None:
    service.lifecycle.live = LiveSnapshot(stable=artifact, shadow=artifact)
    for score in (0.25, 0.75):
        service.monitor.record_answer("stable", 1, np.full(4, score, np.float32))
    service.monitor.record_answer("stable", 1, np.zeros(4, np.float32), finite=False)
    service.monitor.record_failure("stable", 1)
    service.monitor.record_answer("canary", 9, np.full(4, 0.5, np.float32))
    service.shadow._stats = ShadowStats(1, 4, 2, 1, 1.0, 0.8, 2, 1.6)
    service.lifecycle.problems = (Problem("canary", 9, "shift", "its mean score is 2.00 times stable's"),)
    async with client(application(service)) as http:
        body = (await http.get("/models")).json()
        health = (await http.get("/health")).json()
    [watched] = body["watched"]
    assert [watched[name] for name in ("label", "version", "requests", "errors", "non_finite")] == [
        "stable", 1, 3, 1, 1,
    ]  # fmt: skip
    assert watched["scores"]["mean"] == 0.5
    assert list(watched["scores"]["quantiles"]) == ["0.1", "0.5", "0.9", "0.99"]
    assert 0.2 < watched["scores"]["quantiles"]["0.1"] <= 0.3
    assert body["shadow"] == {
        "version": 1, "compared": 4, "skipped": 2, "failed": 1, "score_shift": pytest.approx(-0.05),
        "score_ratio": 0.8, "rank_correlation": 0.8,
    }  # fmt: skip
    assert body["problems"] == health["model"]["problems"]
    assert body["problems"][0]["version"] == 9
    assert health["reasons"] == ["canary_refused: shift"]


async def test_models_of_a_damaged_or_empty_store(service: FakeService) -> None:
    async with client(application(service)) as http:
        assert (await http.get("/models")).json()["serving"] == {}
        publish_tiny(service.model_store)
        (service.model_store.folder / "serving.json").write_text('{"stable": "seven"}')
        body = (await http.get("/models")).json()
        refused = await http.get("/models", params={"limit": 0})
    assert "serving.json" in body["error"]
    assert [version["version"] for version in body["versions"]] == [1]
    assert refused.status_code == 422


async def test_openapi_documents_rank_from_the_parser(service: FakeService) -> None:
    async with client(application(service)) as http:
        document = (await http.get("/openapi.json")).json()
        again = (await http.get("/openapi.json")).json()
    assert document == again
    operation = document["paths"]["/rank"]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    request = document["components"]["schemas"]["RankRequest"]
    assert request["required"] == ["item_ids"]
    for example in body["examples"].values():
        assert set(example["value"]) <= set(request["properties"])
    for status in ("400", "401", "408", "413", "415", "422", "431", "503", "504"):
        assert "application/problem+json" in operation["responses"][status]["content"]
    missing = [
        reference
        for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))
        if reference not in document["components"]["schemas"]
    ]
    assert missing == []


@pytest.mark.parametrize("keys", [True, False])
async def test_openapi_documents_keys_and_problems_of_every_route(service: FakeService, keys: bool) -> None:
    document = application(service, keys=keys).openapi()
    assert document["components"]["securitySchemes"]["ApiKey"]["name"] == "X-API-Key"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("401" in operation["responses"]) == (path in KEPT), path
            required = [{"ApiKey": []}] if keys else [{}, {"ApiKey": []}]
            assert operation.get("security") == (required if path in KEPT else None)
            for status, response in operation["responses"].items():
                if status[0] == "4":
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
    assert "HTTPValidationError" not in json.dumps(document)


def test_a_schema_and_the_parser_agree() -> None:
    (_,), components = msgspec.json.schema_components([RankBody])
    validator = jsonschema.Draft202012Validator({"$ref": "#/$defs/RankBody", "$defs": components})
    for user_id in (None, "", "a", 7, 7.0, -3, 2**64 - 1, "x" * 256):
        for more in ({}, {"top_k": 3.0}, {"model": 2}, {"context": {"a": 2**64 - 1, "b": [1.5, None, True]}}):
            body = {"user_id": user_id, "item_ids": ["1", 2.0], **more}
            assert validator.is_valid(body), body
            parse_rank(json.dumps(body).encode(), 100)
    for wrong in ({"user_id": 1.5}, {"user_id": 2**64}, {"user_id": ["1"]}, {"item_ids": []}, {"top_k": 0}, {"x": 1}):
        body = {"user_id": "1", "item_ids": ["1"], **wrong}
        assert not validator.is_valid(body), body
        with pytest.raises(InvalidRequest):
            parse_rank(json.dumps(body).encode(), 100)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_accepted(name: str) -> None:
    parse_rank(json.dumps(EXAMPLES[name]["value"]).encode(), 100)


def test_the_page_is_in_the_package() -> None:
    assert '"web/*"' in (Path(__file__).parents[2] / "pyproject.toml").read_text()
