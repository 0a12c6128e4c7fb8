"""`ctr check` as people and programs call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis

from app.registry.store.model_store import ModelStore
from tests.command_line import Ctr
from tests.factories import SCHEMA_YAML, publish_tiny, raw_items, raw_users, redis_text


@pytest.fixture
def shop(tmp_path: Path, valkey_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    """A working directory with a live version, whose users and items are in the store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTR_REDIS_URL", valkey_url)
    monkeypatch.setenv("CTR_MODEL", "deepfm")
    publish_tiny(ModelStore(tmp_path / "model_store", "deepfm"))
    for side, entities in (("user", raw_users()), ("item", raw_items())):
        for entity, raw in entities.items():
            redis_client.hset(f"ctr:v1:{side}:{entity}", mapping=redis_text(raw))
    return redis_client


def test_what_matches_ends_with_0(ctr: Ctr, shop: redis.Redis) -> None:
    status, out, said = ctr("check", "--json")
    assert status == 0, said
    sampled = {"users": 40, "items": 60}
    assert json.loads(out) == {"model": "deepfm", "version": 1, "sampled": sampled, "findings": []}
    status, out, said = ctr("check")
    assert (status, out) == (0, "check\twhere\tfield\twhat\tdo\n")
    assert "all matches version 1 of deepfm; looked at 40 users, 60 items" in said


def test_what_does_not_match_ends_with_1_and_says_what_to_do(ctr: Ctr, shop: redis.Redis) -> None:
    shop.hset("ctr:v1:item:3", mapping={"year": "soon", "colour": "red"})
    status, out, said = ctr("check", "--json")
    assert status == 1
    invalid, unread = json.loads(out)["findings"]
    assert (invalid["check"], invalid["where"], invalid["field"]) == ("invalid", "items", "year")
    assert invalid["advice"]
    assert (unread["check"], unread["field"], unread["is_note"]) == ("unread", "colour", True)
    status, out, said = ctr("check")
    assert status == 1
    _, first, second = (line.split("\t") for line in out.splitlines())
    assert first[:3] == ["invalid", "items", "year"]
    assert second[:3] == ["note", "items", "colour"]
    assert "1 thing does not match version 1 of deepfm" in said


def test_notes_alone_are_no_findings(ctr: Ctr, shop: redis.Redis) -> None:
    shop.hset("ctr:v1:item:3", "colour", "red")
    assert ctr("check")[0] == 0


def test_a_schema_alone_can_be_looked_at_by(ctr: Ctr, shop: redis.Redis, tmp_path: Path) -> None:
    (tmp_path / "features.yaml").write_text(SCHEMA_YAML)
    status, out, said = ctr("check", "--schema", "features.yaml", "--model", "none", "--json")
    assert status == 0, said
    assert json.loads(out)["version"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "none"), "there is no version of none in model_store yet: train one first (`ctr train --dataset"),
        (("--version", "9"), "there is no version 9 of deepfm; there are 1"),
        (("--data", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_what_cannot_be_looked_at_is_said(ctr: Ctr, shop: redis.Redis, options: tuple[str, ...], said: str) -> None:
    status, out, error = ctr("check", *options)
    assert (status, out) == (1, "")
    assert said in error


def test_versions_without_a_live_one_are_named(ctr: Ctr, shop: redis.Redis) -> None:
    publish_tiny(ModelStore(Path("model_store"), "none"), labels=())
    status, _, error = ctr("check", "--model", "none")
    assert status == 1
    assert "no version of none is live in model_store: name one with --version (there are 1), or compare with" in error


def test_no_store_at_all_is_a_finding(ctr: Ctr, shop: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CTR_REDIS_URL")
    status, out, _ = ctr("check", "--json")
    assert status == 1
    (finding,) = json.loads(out)["findings"]
    assert "no feature store: CTR_REDIS_URL is empty, and none was used in .ctr" in finding["message"]
