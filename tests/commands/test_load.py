"""`ctr load` as its users run it, into a real Valkey, configured or embedded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import redis
from click.testing import Result
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


USERS = "id,age,gender\n1,30,F\n2,40,M\n"
USER_SCHEMA = """\
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: age, entity: user, type: numeric}
  - {name: gender, entity: user, type: categorical}
  - {name: item_id, entity: item, type: categorical, id: true}
"""


@pytest.fixture
def load_users(
    tmp_path: Path, valkey_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Load users of age and gender once, and return a function that loads another file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTR_REDIS_URL", valkey_url)
    (tmp_path / "features.yaml").write_text(USER_SCHEMA)

    def run(text: str, *options: str) -> Result:
        (tmp_path / "users.csv").write_text(text)
        arguments = ["load", "users", "users.csv", "--features", "features.yaml", "--json", *options]
        return CliRunner().invoke(cli, arguments)

    assert run(USERS).exit_code == 0
    return run


def test_a_misspelt_column_writes_nothing(load_users: Callable[..., Result], redis_client: redis.Redis) -> None:
    result = load_users("id,agee,gender\n1,31,F\n2,41,M\n")
    assert result.exit_code == 1
    assert "agee (do you mean age?)" in str(result.exception)
    assert redis_client.hgetall("ctr:v1:user:1") == {"age": "30", "gender": "F"}
    said = load_users("id,agee,gender\n1,31,F\n2,41,M\n", "--ignore", "agee")
    assert json.loads(said.stdout)["lost"] == {"age": 2}


def test_what_an_entity_lost_is_counted_and_said(load_users: Callable[..., Result], redis_client: redis.Redis) -> None:
    result = load_users("id,age\n1,31\n")
    document = json.loads(result.stdout)
    assert (document["lost"], document["lacking"]) == ({"gender": 1}, ["gender"])
    assert "has no gender" in result.stderr
    assert "stored before and not any more: gender (1 users)" in result.stderr.replace("\n", " ")
    assert redis_client.hgetall("ctr:v1:user:1") == {"age": "31"}
    assert json.loads(load_users("id,age,gender\n2,,\n").stdout)["lost"] == {"age": 1, "gender": 1}


def test_merging_updates_what_the_file_has(load_users: Callable[..., Result], redis_client: redis.Redis) -> None:
    document = json.loads(load_users("id,age\n1,31\n2,\n3,50\n", "--merge").stdout)
    assert document["lost"] == {"age": 1}
    stored = [redis_client.hgetall(f"ctr:v1:user:{number}") for number in (1, 2, 3)]
    assert stored == [{"age": "31", "gender": "F"}, {"gender": "M"}, {"age": "50"}]


def test_deleting_removes_whom_the_file_names(load_users: Callable[..., Result], redis_client: redis.Redis) -> None:
    result = load_users("id\n1\n9\n", "--delete")
    assert json.loads(result.stdout) == {"entity": "users", "removed": 1}
    assert redis_client.keys() == ["ctr:v1:user:2"]
    refused = load_users('id\n2\n""\n', "--delete")
    assert "line 3: id: is empty; nothing was removed" in str(refused.exception)
    assert redis_client.keys() == ["ctr:v1:user:2"]
    assert "choose one" in str(load_users(USERS, "--delete", "--merge").exception)


def test_one_error_names_the_column_of_the_ids(load_users: Callable[..., Result]) -> None:
    rows = "\n".join(f"{number},{number}" for number in range(50))
    for options in ((), ("--delete",)):
        result = load_users(f"user_id,age\n{rows}\n", *options)
        assert str(result.exception).endswith("only user_id, age; use `--id user_id`")
