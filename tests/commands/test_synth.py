"""`ctr synth`, as people run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from app.cli import cli
from app.registry.artifact.load import load
from app.registry.store.model_store import ModelStore


def test_the_command_publishes_and_loads(
    tmp_path: Path, redis_client: redis.Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTR_MODEL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("CTR_REDIS_URL", valkey_url)
    size = "--users 5 --items 9 --user-fields 2 --item-fields 3 --cardinality 20 --dim 4 --hidden 8,4"
    result = CliRunner().invoke(cli, ["synth", *size.split(), "--publish", "--load", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["version"], told["users"], told["items"], told["keys"]) == (1, 5, 9, 100)
    store = ModelStore(tmp_path / "store", "deepfm")
    assert store.pointer().stable == 1
    version = load(Path(told["version_dir"]))  # replays its golden requests
    assert [field.name for field in version.schema.fields] == ["user_f0", "user_f1", "item_f0", "item_f1", "item_f2"]
    assert redis_client.dbsize() == 14
    assert redis_client.hgetall("ctr:v1:user:4").keys() == {"user_f0", "user_f1"}


def test_the_command_without_publish_keeps_the_version_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    size = "--users 5 --items 9 --user-fields 2 --item-fields 3 --cardinality 20 --dim 4 --hidden 8"
    result = CliRunner().invoke(cli, ["synth", *size.split(), "--json"])
    assert result.exit_code == 0, result.output
    assert load(Path(json.loads(result.stdout)["version_dir"])).version == 0
    assert not (tmp_path / "model_store").exists()
