"""`ctr demo`: its port is looked at before it trains, and what it loaded can be taken out again."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import redis

from app.errors import StoreError
from app.publishing.demo_features import is_of_demo, remove_demo
from app.publishing.feature_sample import read_feature_sample
from app.publishing.reporter import SILENT
from app.settings import load_settings
from tests.command_line import Ctr


@pytest.fixture
def loaded(
    ctr: Ctr, tmp_path: Path, valkey_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> redis.Redis:
    """Store what a demo would have exported and loaded: 250 users and 2 items."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTR_REDIS_URL", valkey_url)
    folder = tmp_path / ".ctr/features/movielens"
    folder.mkdir(parents=True)
    users = [{"id": str(n), "age": 20 + n % 50, "genres": {"Drama": 3.0}, "note": None} for n in range(250)]
    for name, rows in (("users", users), ("items", [{"id": "1", "title": "Amélie"}, {"id": "2", "year": 1990}])):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        assert ctr("load", name, str(folder / f"{name}.jsonl"))[0] == 0
    assert redis_client.dbsize() == 252
    return redis_client


def test_clearing_removes_what_the_demo_loaded_and_nobody_elses(ctr: Ctr, loaded: redis.Redis) -> None:
    loaded.hset("ctr:v1:user:7", "age", "99")
    loaded.hset("ctr:v1:user:mine", "age", "30")
    status, out, err = ctr("demo", "--clear", "--json")
    assert status == 0, err
    assert json.loads(out) == {"removed": {"users": 249, "items": 2}}
    assert sorted(loaded.keys()) == ["ctr:v1:user:7", "ctr:v1:user:mine"]
    status, out, err = ctr("demo", "--clear", "--json")
    assert json.loads(out) == {"removed": {"users": 0, "items": 0}}
    assert "the store has no user and no item as the demo loaded them" in err


@pytest.mark.parametrize("error", [redis.ReadOnlyError("a replica"), redis.exceptions.SlotNotCoveredError("slot 7")])
def test_a_store_that_does_not_let_itself_be_cleared_is_a_store_error(
    error: Exception, loaded: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(loaded, "delete", refuse)
    with pytest.raises(StoreError, match=str(error)):
        remove_demo(loaded, load_settings())


def test_the_demos_features_are_known_in_the_store(ctr: Ctr, loaded: redis.Redis) -> None:
    settings = load_settings()
    sample = read_feature_sample(settings, SILENT)
    assert sample is not None
    assert is_of_demo(sample, settings)
    ctr("demo", "--clear")
    loaded.hset("ctr:v1:user:1", "age", "30")
    sample = read_feature_sample(settings, SILENT)
    assert sample is not None
    assert not is_of_demo(sample, settings)


def test_clearing_where_there_was_no_demo_does_nothing(
    ctr: Ctr, tmp_path: Path, valkey_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTR_REDIS_URL", valkey_url)
    redis_client.hset("ctr:v1:user:1", "age", "30")
    _, out, err = ctr("demo", "--clear", "--json")
    assert json.loads(out) == {"removed": {"users": 0, "items": 0}}
    assert "nothing to remove: no demo was loaded from here" in err
    assert "its model stays" not in err
    assert redis_client.dbsize() == 1


def test_clearing_an_empty_folder_starts_no_store(ctr: Ctr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CTR_REDIS_URL", raising=False)
    assert ctr("demo", "--clear")[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_said_before_training(ctr: Ctr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("app.commands.demo._train", lambda *_: pytest.fail("it trains"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, _, err = ctr("demo", "--port", str(taken.getsockname()[1]))
    assert status == 1
    assert "cannot listen on 127.0.0.1" in err
    assert "--port" in err
