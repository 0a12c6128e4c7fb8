"""The gate as the use cases run it: the live feature store is sampled if there is one, and its absence is no fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from app.errors import ArtifactError
from app.features.loading.embedded_valkey import EmbeddedValkey
from app.publishing.gate_version import gate_version
from app.registry.gate.gate_report import GateReport
from app.registry.store.model_store import ModelStore
from app.settings import Settings
from tests.factories import publish_tiny, raw_items, raw_users, redis_text
from tests.publishing.test_publish import RecordingReporter


def settings(store: ModelStore, redis_url: str, **others: object) -> Settings:
    store_settings = {"model_store": store.folder.parent, "model": store.name, "redis_url": redis_url}
    return Settings(**{"data_dir": store.folder.parent / "data", **store_settings, **others})  # type: ignore[arg-type]


def schema_check(report: GateReport) -> dict[str, float] | None:
    return next((check.figures for check in report.checks if check.name == "schema"), None)


def load(client: redis.Redis, user_key: str = "ctr:v1:user:", item_key: str = "ctr:v1:item:") -> None:
    for prefix, raws in ((user_key, raw_users()), (item_key, raw_items())):
        for entity, raw in raws.items():
            client.hset(prefix + entity, mapping=redis_text(raw))


@pytest.mark.usefixtures("gate_in_process")
def test_the_live_features_are_compared_with_the_vocabulary(
    store: ModelStore, redis_client: redis.Redis, valkey_url: str
) -> None:
    load(redis_client, "uf:", "if:")
    redis_client.set("uf:text", "not a hash")
    redis_client.hset("uf:\udcff".encode("utf-8", "surrogateescape"), mapping={b"gender": b"\xff\xfe"})  # type: ignore[arg-type]
    version = publish_tiny(store, labels=())
    live_settings = settings(store, valkey_url, user_key="uf:{id}", item_key="if:{id}")
    figures = schema_check(gate_version(ModelStore.from_settings(live_settings), version, settings=live_settings))
    assert figures is not None
    assert figures["users"] >= 31, "one of the 32 keys that are drawn may be the text"
    assert figures["items"] == 60
    assert figures["known_user"] > 0.9
    assert figures["known_item"] > 0.9


@pytest.mark.faults
@pytest.mark.usefixtures("gate_in_process")
def test_other_features_refuse_a_version(store: ModelStore, redis_client: redis.Redis, valkey_url: str) -> None:
    for number in range(40):
        redis_client.hset(f"ctr:v1:item:{number + 5000}", mapping={"price": number, "colour": "red"})
    version = publish_tiny(store, labels=())
    live_settings = settings(store, valkey_url)
    with pytest.raises(ArtifactError, match=f"known_item.*ctr promote {version} --force") as refused:
        gate_version(store, version, settings=live_settings)
    assert refused.value.reason == "schema"
    assert gate_version(store, version, settings=live_settings, forced=True).passed
    assert gate_version(store, version, settings=settings(store, valkey_url, gate_known_keys=0.0)).passed


@pytest.mark.faults
@pytest.mark.usefixtures("gate_in_process")
def test_an_empty_or_absent_store_is_not_held_against_a_version(
    store: ModelStore, redis_client: redis.Redis, valkey_url: str
) -> None:
    version = publish_tiny(store, labels=())
    assert schema_check(gate_version(store, version, settings=settings(store, valkey_url))) is None
    told = RecordingReporter()
    assert schema_check(gate_version(store, version, settings(store, "redis://127.0.0.1:1"), told)) is None
    assert "not compared with the feature store" in told.messages[0]
    assert not (store.folder.parent / "data").exists(), "no embedded server is started where none was used"


@pytest.mark.usefixtures("gate_in_process")
def test_an_embedded_store_that_was_loaded_is_asked(store: ModelStore, tmp_path: Path) -> None:
    live_settings = settings(store, "", data_dir=tmp_path)
    with EmbeddedValkey(tmp_path / "valkey") as server, redis.Redis.from_url(server.url) as client:
        load(client)
    version = publish_tiny(store, labels=())
    figures = schema_check(gate_version(store, version, settings=live_settings))
    assert figures is not None
    assert figures["known_item"] > 0.9
