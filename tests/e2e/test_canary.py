"""Canaries that go wrong under load, a shadow, and the admin's hand: real processes and features, no failed request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import redis
import torch
from torch import Tensor

from app.loadgen.generator import LoadGenerator
from app.loadgen.requests import rank_bodies
from app.loadgen.result import LoadResult
from app.models.deepfm import DeepFM
from app.models.native_weights import TopMlpWeights
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import Pointer
from tests import loopback
from tests.e2e.conftest import Running, Serve
from tests.factories import ITEMS, USERS
from tests.registry.torchscript.variants import modified_model, publish_model, retrained_model
from tests.waiting import until

CANDIDATES, RATE, SHARE = 30, 80.0, 0.5
KEY = "an admin's key"


class Unfinite(DeepFM):
    """A model that passes the gate and then gives NaN for requests of a size that only this test's users send."""

    def top_mlp(self) -> TopMlpWeights | None:
        return None  # nothing of it can be run compiled

    def probability(self, logits_N: Tensor) -> Tensor:
        p_N = torch.sigmoid(logits_N * self.calibration_2[0] + self.calibration_2[1])
        if p_N.shape[0] == 30:
            return p_N * float("nan")
        return p_N


class Raising(DeepFM):
    """A model that passes the gate and then raises for requests of that size."""

    def top_mlp(self) -> TopMlpWeights | None:
        return None  # nothing of it can be run compiled

    def probability(self, logits_N: Tensor) -> Tensor:
        if logits_N.shape[0] == 30:
            raise RuntimeError("no such size")
        return torch.sigmoid(logits_N * self.calibration_2[0] + self.calibration_2[1])


@contextmanager
def load(service: Running) -> Iterator[LoadResult]:
    """Send traffic for as long as the block lasts."""
    bodies = rank_bodies([str(n) for n in range(USERS)], [str(n) for n in range(ITEMS)], CANDIDATES)
    generator = LoadGenerator(service.url, bodies)
    result = generator.result
    ended = threading.Event()

    async def keep_on() -> None:
        nonlocal result
        while not ended.is_set():
            part = await generator.open(RATE, 0.5, connections=8)
            result.statuses += part.statuses
            result.versions += part.versions
            result.degraded += part.degraded

    thread = threading.Thread(target=lambda: asyncio.run(keep_on()))
    thread.start()
    try:
        yield result
    finally:
        ended.set()
        thread.join(60)


def metric(metrics: str, start: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith(start))


def test_wrong_canaries_go_a_shadow_is_compared_an_admin_acts_and_nobody_fails(
    store: ModelStore, loaded: redis.Redis, serve: Serve
) -> None:
    publish_model(store, retrained_model(), live=True)
    limits = {"CANARY_MIN_REQUESTS": "30", "SHADOW_SHARE": "1.0", "GATE_LATENCY_RATIO": "1000"}
    service = serve(wait=False, ADMIN_KEY=KEY, **limits)
    store.promote(publish_model(store, retrained_model(seed=1)), "shadow")  # while the service starts
    bad = {
        "shift": publish_model(
            store, modified_model(lambda model: model.calibration_2.copy_(torch.tensor([0.7, 3.0])))
        ),
        "finite": publish_model(store, retrained_model(Unfinite, seed=1)),
        "errors": publish_model(store, retrained_model(Raising, seed=1)),
    }
    service.wait_until(lambda health: health["status"] == "ok" and "shadow" in health["model"]["labels"])
    # A client of its own for every question would take longer than the answer.
    with load(service) as traffic, loopback.http_client(base_url=service.url) as http:
        for reason, version in bad.items():
            store.promote(version, "canary", SHARE)
            until(lambda: store.pointer() == Pointer(1, None, 2))
            until(lambda problem=f"canary_refused: {reason}": http.get("/health").json()["reasons"] == [problem])
            the_models_say(http, reason, version)
        compared = until(lambda: (http.get("/models").json()["shadow"] or {}).get("compared"))
        an_admin_acts(http, store, bad["shift"])
        metrics = http.get("/metrics").text
    assert traffic.failed == 0
    assert traffic.statuses[200] > 200
    assert traffic.versions[bad["shift"]] > 0
    assert traffic.versions[bad["errors"]] == 0, "stable answered all that it could not"
    assert set(traffic.versions) <= {1, 2, bad["shift"], bad["finite"]}
    the_metrics_say(metrics, bad, compared)
    assert any('"model_withdrawn"' in line and '"shift"' in line for line in service.log)
    assert sum("admin_action" in line for line in service.log) >= 5
    assert not any(KEY in line for line in service.log)


def the_models_say(http: httpx.Client, reason: str, version: int) -> None:
    models = http.get("/models").json()
    assert models["problems"][0] | {"message": ""} == {
        "label": "canary", "version": version, "reason": reason, "message": "",
    }  # fmt: skip
    listed = next(one for one in models["versions"] if one["version"] == version)
    assert (listed["labels"], listed["gate"]["passed"]) == ([], False)
    assert listed["gate"]["checks"][0]["reason"] == reason


def the_metrics_say(metrics: str, bad: dict[str, int], compared: int) -> None:
    taken = [metric(metrics, f'ctr_canary_withdrawn_total{{reason="{reason}"}}') for reason in bad]
    assert taken == [1, 1, 1]
    assert metric(metrics, f'ctr_model_errors_total{{version="{bad["errors"]}"}}') >= 1
    assert metric(metrics, f'ctr_model_non_finite_total{{version="{bad["finite"]}"}}') >= 1
    assert metric(metrics, 'ctr_degraded_total{reason="model_fallback"}') >= 1
    assert metric(metrics, 'ctr_scores_count{label="canary"}') > 0
    assert metric(metrics, 'ctr_shadow_requests_total{outcome="compared"}') >= compared
    count = metric(metrics, "ctr_shadow_rank_correlation_count")
    assert count >= compared
    agreed = count - metric(metrics, 'ctr_shadow_rank_correlation_bucket{le="0.5"}')
    assert agreed > 0.8 * count
    assert 0.3 < metric(metrics, "ctr_shadow_score_shift_ratio_sum") / count < 1.1
    assert metric(metrics, "ctr_admin_keys_refused_total") == 6
    for action, outcome in (("promote", "done"), ("rollback", "done"), ("refuse", "conflict")):
        assert metric(metrics, f'ctr_admin_actions_total{{action="{action}",outcome="{outcome}"}}') >= 1


def an_admin_acts(http: httpx.Client, store: ModelStore, withdrawn: int) -> None:
    def act(action: str, version: int | None = None, key: str | None = KEY) -> httpx.Response:
        headers = {} if key is None else {"X-Admin-Key": key}
        body = None if version is None else {"version": version}
        return http.post(f"/admin/{action}", json=body, headers=headers)

    for key in (None, KEY + "?"):
        for action in ("promote", "rollback", "refuse"):
            assert act(action, 2, key).status_code == 401
    assert store.pointer() == Pointer(1, None, 2)
    answers: list[httpx.Response] = []
    promoting = threading.Thread(target=lambda: answers.append(act("promote", 2)))
    promoting.start()
    conflict = until(lambda: (answer := act("refuse", 999)).status_code == 409 and answer)
    assert conflict.json()["type"] == "urn:ctr-serving:problem:conflict"
    assert http.get("/health").status_code == 200, "open, and answered meanwhile"
    promoting.join(60)
    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json()["serving"] == {"stable": 2}, "a shadow that is promoted is one no more"
    assert {check["name"] for check in answers[0].json()["gate"]["checks"]} >= {"integrity", "scores", "shift"}
    until(lambda: http.get("/health").json()["model"]["version"] == 2)
    back = act("rollback")
    assert (back.status_code, back.json()["version"]) == (200, 1), back.text
    until(lambda: http.get("/health").json()["model"]["version"] == 1)
    again = act("promote", withdrawn)
    assert (again.status_code, again.json()["type"]) == (422, "urn:ctr-serving:problem:version-refused")
    store.promote(2, "shadow")
    refused = act("refuse", 2)
    assert (refused.status_code, refused.json()["labels"]) == (200, ["shadow"])
    assert store.pointer() == Pointer(1)
