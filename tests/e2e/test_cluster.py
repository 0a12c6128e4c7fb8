"""A service on a real cluster: loaded by `ctr load`, changed, and served on through the death of a master."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from app.features.redis_client import open_client
from app.registry.artifact.load import load
from app.registry.store.model_store import ModelStore
from tests.e2e.conftest import services
from tests.e2e.test_hosted_redis import expected, load_features
from tests.factories import MODEL_NAME, publish_tiny, raw_item, raw_user
from tests.redis_clusters import Cluster, node_of
from tests.waiting import until

ITEMS = 30


@pytest.mark.faults
@pytest.mark.slow
def test_a_cluster_is_loaded_served_and_followed_through_a_failover(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "model_store", MODEL_NAME)
    artifact = load(store.path(publish_tiny(store)))
    items = {str(n): raw_item(n) for n in range(ITEMS)}
    lost = node_of("ctr:v1:user:4")
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(tmp_path / "cluster", replicas=True))
        load_features(items, tmp_path, store, cluster.url)
        service = stack.enter_context(services(store, cluster.url, tmp_path / "data"))()

        def served() -> bool:
            answer = service.rank(items=list(items))
            assert answer.status_code == 200
            scores = {item["item_id"]: item["score"] for item in answer.json()["items"]}
            assert set(scores) == set(items)
            wanted = expected(artifact, "4", raw_user(4), items)
            return answer.json()["degraded"] == [] and scores == pytest.approx(wanted, abs=1e-5)

        until(served)
        with open_client(cluster.url) as client:
            for number in range(3):
                items[str(number)] = items[str(number)] | {"year": 1931}
                client.hset(f"ctr:v1:item:{number}", "year", "1931")
        until(served)
        cluster.nodes[lost].kill()
        until(lambda: "user_features_unavailable" in service.rank(items=list(items)).json()["degraded"])
        until(served)
        service.wait_until(lambda health: health["status"] == "ok")
