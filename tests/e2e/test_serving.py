"""The service as its users meet it: over HTTP, in its own process, with a real Valkey."""

from __future__ import annotations

import gzip
import json
import math
import socket
import time
import zlib
from urllib.parse import urlsplit

import httpx
import jsonschema
import pytest
import redis

from app.registry.store.model_store import ModelStore
from tests import loopback
from tests.e2e.conftest import Running, Serve, Shared
from tests.factories import publish_tiny, raw_item, raw_user, redis_text
from tests.ranking.conftest import expected
from tests.waiting import until

ANSWERED = 'ctr_rank_requests_total{status="200",version="1"}'


@pytest.fixture
def service(shared: Shared) -> Running:
    return shared.service


def test_an_answer_is_what_the_contract_says(shared: Shared) -> None:
    service = shared.service
    response = loopback.post(
        f"{service.url}/rank",
        json={"user_id": 4, "item_ids": [1, "2", 1, "nothing"], "request_id": "abc", "context": {"hour": 21}},
        headers={"X-Request-ID": "from-the-header"},
    )
    assert response.status_code == 200
    answer = response.json()
    assert list(answer) == ["request_id", "model", "version", "label", "items", "degraded", "missing"]
    assert (answer["request_id"], answer["model"], answer["version"], answer["label"]) == ("abc", "deepfm", 1, "stable")
    assert answer["degraded"] == []
    assert answer["missing"] == {"user": False, "items": ["nothing"]}
    expected_scores = expected(
        shared.artifact, "4", raw_user(4) | {"hour": 21}, {"1": raw_item(1), "2": raw_item(2), "nothing": {}}
    )
    assert {item["item_id"]: item["score"] for item in answer["items"]} == pytest.approx(expected_scores, abs=1e-5)
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert response.headers["x-request-id"] == "from-the-header"
    assert response.headers["x-model-version"] == "1"
    stages = [entry.split(";")[0].strip() for entry in response.headers["server-timing"].split(",")]
    assert stages == ["decode", "features", "encode", "score", "respond"]


def test_an_explanation_adds_up_and_leads_to_the_score(shared: Shared) -> None:
    """Also of a guest, an unknown item, and an item with features of the request, as the document says."""
    document = httpx.get(f"{shared.service.url}/openapi.json").json()
    schema = {**document["components"]["schemas"]["Ranking"], "components": document["components"]}
    for user in ({"user_id": "4"}, {}):
        body = {**user, "item_ids": [*range(30), "nothing"], "explain": True, "item_features": {"3": {"year": 1930}}}
        answer = httpx.post(f"{shared.service.url}/rank", json=body).json()
        jsonschema.validate(answer, schema)
        items = answer["items"]
        assert ["explanation" in item for item in items] == [True] * 20 + [False] * 11
        for item in items[:20]:
            explanation = item["explanation"]
            logit, (scale, offset) = explanation["logit"], explanation["calibration"].values()
            assert sum(part["value"] for part in explanation["parts"]) == pytest.approx(logit, abs=1e-4)
            assert 1 / (1 + math.exp(-scale * logit - offset)) == pytest.approx(item["score"], abs=1e-5)
            assert {"bias", "first", "pair", "deep"} == {part["part"] for part in explanation["parts"]}


def test_a_guest_and_what_nobody_reads(shared: Shared) -> None:
    url = f"{shared.service.url}/rank"
    expected_scores = expected(shared.artifact, None, {"hour": 21}, {"1": raw_item(1), "2": raw_item(2)})
    for user in ({}, {"user_id": None}, {"user_id": ""}):
        body = {**user, "item_ids": [1, "2"], "context": {"hour": 21, "huor": 3}}
        answer = loopback.post(url, json=body).json()
        assert answer["missing"] == {"user": True, "items": []}
        assert answer["degraded"] == []
        assert answer["ignored"] == ["context.huor"]
        scores = {item["item_id"]: item["score"] for item in answer["items"]}
        assert scores == pytest.approx(expected_scores, abs=1e-5)
    assert 'ctr_features_missing_total{entity="guest"}' in loopback.get(f"{shared.service.url}/metrics").text


def test_bodies_as_clients_write_them(service: Running) -> None:
    plain = json.dumps({"user_id": "4", "item_ids": ["1", "2"]}).encode()
    forms: list[tuple[bytes, dict[str, str], int]] = [
        (b"\xef\xbb\xbf" + plain, {}, 200),
        (gzip.compress(plain), {"Content-Encoding": "gzip"}, 200),
        (gzip.compress(b" " * 10_000_000 + plain), {"Content-Encoding": "gzip"}, 413),
        (zlib.compress(plain), {"Content-Encoding": "deflate"}, 415),
        (plain, {"Content-Type": "application/x-www-form-urlencoded"}, 200),
        (plain.decode().encode("utf-16"), {"Content-Type": "application/json; charset=utf-16"}, 400),
        (plain + plain, {}, 400),
        (b"", {}, 400),
    ]
    with loopback.http_client(base_url=service.url) as client:
        for body, headers, status in forms:
            response = client.post("/rank/", content=body, headers=headers)
            assert response.status_code == status, (body[:40], headers)
            assert response.history == []


def test_a_refused_body_that_comes_slowly_is_taken_to_its_end(service: Running) -> None:
    """The client writes all before it reads, for a second."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:  # type: ignore[arg-type]
        connection.sendall(b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"x" * 200_000)
            time.sleep(0.01)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


def answered(service: Running) -> float:
    lines = loopback.get(f"{service.url}/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(ANSWERED))


def test_health_metrics_models_and_docs_answer(service: Running) -> None:
    before = answered(service)
    service.rank()
    assert loopback.get(f"{service.url}/health").json()["model"]["version"] == 1
    assert loopback.get(f"{service.url}/health/live").status_code == 200
    assert loopback.get(f"{service.url}/health/ready").status_code == 200
    assert loopback.get(f"{service.url}/models").json()["versions"][0]["live"] == ["stable"]
    until(lambda: answered(service) > before)  # asked again so soon, a slow machine gives the same text
    metrics = loopback.get(f"{service.url}/metrics").text
    for name in ("ctr_rank_duration_seconds", "ctr_stage_duration_seconds", "ctr_candidates", "ctr_model_info"):
        assert name in metrics
    assert "/rank" in loopback.get(f"{service.url}/openapi.json").json()["paths"]
    assert loopback.get(service.url).headers["content-type"].startswith("text/html")
    assert loopback.get(f"{service.url}/rank").status_code == 405


def test_without_a_model_it_says_so_and_takes_the_first_one_that_comes(
    store: ModelStore, loaded: redis.Redis, serve: Serve
) -> None:
    service = serve(wait=False)
    assert service.wait_until(lambda health: True)["status"] == "unavailable"
    assert loopback.get(f"{service.url}/health").status_code == 503
    assert loopback.get(f"{service.url}/health/ready").status_code == 503
    refused = service.rank()
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    publish_tiny(store)
    service.wait_until(lambda health: health["status"] == "ok")
    assert service.rank().status_code == 200


IDS = b'"item_ids":["1"]'
BAD_BODIES: dict[str, tuple[bytes, set[int]]] = {
    "not JSON": (b"{", {400}),
    "nothing": (b"", {400}),
    "NaN": (b'{"user_id":"1",' + IDS + b',"context":{"hour":NaN}}', {400}),
    "Infinity": (b'{"user_id":"1",' + IDS + b',"context":{"hour":-Infinity}}', {400}),
    "1e999": (b'{"user_id":"1",' + IDS + b',"context":{"session_length":1e999}}', {400, 422}),
    "a lone surrogate in an id": (b'{"user_id":"\\ud800",' + IDS + b"}", {400, 422}),
    "a lone surrogate in a feature": (b'{"user_id":"1",' + IDS + b',"context":{"hour":"\\udc00"}}', {400, 422}),
    "2**64 as a user": (b'{"user_id":18446744073709551616,' + IDS + b"}", {422}),
    "2**64 as an item": (b'{"user_id":"1","item_ids":[18446744073709551616]}', {422}),
    "2**64 as a feature": (b'{"user_id":"1",' + IDS + b',"context":{"hour":18446744073709551616}}', {422}),
    "100,000 nested brackets": (
        b'{"user_id":"1",' + IDS + b',"context":{"hour":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        {400, 422},
    ),
    "100,000 brackets": (b"[" * 100_000, {400, 422}),
    "no items": (b'{"user_id":"1","item_ids":[]}', {422}),
    "100,000 ids": (json.dumps({"user_id": "1", "item_ids": [str(n) for n in range(100_000)]}).encode(), {413, 422}),
    "a list": (b"[]", {422}),
    "a number": (b"1", {422}),
    "a boolean id": (b'{"user_id":true,' + IDS + b"}", {422}),
    "a fraction as an id": (b'{"user_id":"1","item_ids":[1.5]}', {422}),
    "an object as an id": (b'{"user_id":"1","item_ids":[{}]}', {422}),
    "an empty id": (b'{"user_id":"1","item_ids":[""]}', {422}),
    "a feature of the wrong type": (b'{"user_id":"1",' + IDS + b',"context":{"session_length":[1]}}', {422}),
    "a word for a number": (
        b'{"user_id":"1",' + IDS + b',"user_features":{"age":"old"},"context":{"session_length":"long"}}',
        {422},
    ),
    "a model nobody has": (b'{"user_id":"1",' + IDS + b',"model":"champion"}', {422}),
    "bytes that are not UTF-8": (b'{"user_id":"\xff",' + IDS + b"}", {400}),
    "top_k 0": (b'{"user_id":"1",' + IDS + b',"top_k":0}', {422}),
    "an unknown field": (b'{"user_id":"1",' + IDS + b',"user":1}', {422}),
}


def test_bad_bodies_get_a_small_problem_and_the_next_request_is_served(service: Running) -> None:
    with loopback.http_client(base_url=service.url) as client:
        for name, (body, statuses) in BAD_BODIES.items():
            response = client.post("/rank", content=body)
            assert response.status_code in statuses, (name, response.status_code, response.text[:300])
            assert response.headers["content-type"] == "application/problem+json", name
            assert len(response.content) <= 4096, name
            problem = response.json()
            assert {"type", "title", "status", "detail", "request_id"} <= problem.keys(), name
            assert client.post("/rank", json={"user_id": "4", "item_ids": ["1"]}).status_code == 200, name


def test_bad_headers_are_refused_or_replaced(service: Running) -> None:
    body = {"user_id": "4", "item_ids": ["1"]}
    late = loopback.post(f"{service.url}/rank", json=body, headers={"X-Request-Timeout-Ms": "0.0001"})
    assert late.status_code == 504
    assert loopback.post(f"{service.url}/rank", json=body, headers={"X-Request-Timeout-Ms": "soon"}).status_code == 422
    odd = loopback.post(f"{service.url}/rank", json=body, headers={"X-Request-ID": "a b\tc"})
    assert odd.status_code == 200
    assert odd.headers["x-request-id"] != "a b\tc"


def test_a_huge_body_is_refused_before_it_is_read(service: Running) -> None:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:  # type: ignore[arg-type]
        connection.sendall(b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n" + b"[" * 1000)
        assert b" 413 " in connection.recv(65536).split(b"\r\n")[0]
    chunk = b"1" * 65536

    def endless() -> object:
        for _ in range(1600):
            yield chunk

    try:
        response = loopback.post(f"{service.url}/rank", content=endless())  # type: ignore[arg-type]
        assert response.status_code == 413
    except (httpx.WriteError, httpx.RemoteProtocolError):
        pass  # closed while we were still sending: refused as well
    assert service.rank().status_code == 200


def test_api_keys_guard_rank_and_leave_health_open(store: ModelStore, loaded: redis.Redis, serve: Serve) -> None:
    publish_tiny(store)
    service = serve(API_KEYS="first,second")
    assert service.rank().status_code == 401
    body = {"user_id": "4", "item_ids": ["1"]}
    for key, status in (("second", 200), ("third", 401)):
        assert loopback.post(f"{service.url}/rank", json=body, headers={"X-API-Key": key}).status_code == status
    assert loopback.get(f"{service.url}/health").status_code == 200


def test_a_stored_value_of_the_wrong_kind_never_fails_a_request(shared: Shared) -> None:
    service, features = shared.service, shared.features
    features.hset("ctr:v1:user:odd5", mapping={"gender": "F", "liked_genres": "[not JSON", "age": "1e999"})
    features.set("ctr:v1:item:odd50", "a string where a hash belongs")
    features.lpush("ctr:v1:user:odd6", "a list where a hash belongs")
    features.hset("ctr:v1:item:odd51", mapping=redis_text(raw_item(51)) | {"year": "MCMXC"})
    for user in ("odd5", "odd6"):
        response = service.rank(user, ["odd50", "odd51", "52"])
        assert response.status_code == 200
        assert all(0 <= item["score"] <= 1 for item in response.json()["items"])
    assert service.rank("odd5").json()["degraded"] == ["invalid_stored_features"]
