"""`ctr load` as its users run it, into a real Valkey, configured or embedded."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import redis
from typer.testing import CliRunner

from app.cli import cli
from app.errors import DataError
from app.features.loading.embedded_valkey import EmbeddedValkey
from app.registry.store.model_store import ModelStore
from tests.factories import publish_tiny, raw_items


@pytest.fixture
def items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a file of 60 items into an empty folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "items.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode({"id": name, **raw}) for name, raw in raw_items().items()))
    return path


def test_json_is_one_document_and_all_else_is_on_standard_error(
    items: Path, valkey_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTR_REDIS_URL", valkey_url)
    result = CliRunner().invoke(cli, ["load", "items", str(items), "--json"], catch_exceptions=False)
    document = json.loads(result.stdout)
    assert document.keys() == {"entity", "loaded", "bad", "seconds", "rows_per_second"}
    assert (document["entity"], document["loaded"], document["bad"]) == ("items", 60, 0)
    assert redis_client.hget("ctr:v1:item:0", "genres") == msgspec.json.encode(raw_items()["0"]["genres"]).decode()


def test_values_are_checked_by_the_live_models_schema(
    items: Path, store: ModelStore, valkey_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTR_REDIS_URL", valkey_url)
    monkeypatch.setenv("CTR_MODEL_STORE", str(store.folder.parent))
    items.write_text(items.read_text() + '\n{"id": "new", "year": "MCMXC"}\n')
    assert CliRunner().invoke(cli, ["load", "items", str(items)], catch_exceptions=False).exit_code == 0
    redis_client.flushall()
    publish_tiny(store)
    with pytest.raises(DataError, match="year: expected a number"):
        CliRunner().invoke(cli, ["load", "items", str(items)], catch_exceptions=False)
    assert redis_client.dbsize() == 0


def test_without_a_redis_the_embedded_one_keeps_what_was_loaded(items: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CTR_REDIS_URL", raising=False)
    monkeypatch.setenv("CTR_ITEM_KEY", "mf:{id}")
    CliRunner().invoke(cli, ["load", "items", str(items)], catch_exceptions=False)
    with EmbeddedValkey(Path(".ctr/valkey")) as server, redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 60
        assert client.exists("mf:0")
