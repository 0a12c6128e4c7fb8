"""`ctr skew` says what it found, on a terminal and as JSON, and ends with 1 where there is skew."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from tests.command_line import Ctr, command_line
from tests.training.skew.worlds import Service, World


@pytest.fixture
def ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctr:
    monkeypatch.delenv("CTR_EVENTS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return command_line(monkeypatch, capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of a service that is right and of one that is not, and a table."""
    folder, world = tmp_path_factory.mktemp("skew"), World(entities=40)
    Service(world, folder / "right").record(200)
    Service(world, folder / "wrong", {"user_word1": lambda given: given["user_word1"].str.to_lowercase()}).record(200)
    world.tables["user"].write_parquet(folder / "users.parquet")
    return folder


def test_without_skew_the_status_is_0(ctr: Ctr, folder: Path) -> None:
    status, out, err = ctr(
        "skew", "--events", str(folder / "right"), "--data", str(folder / "users.parquet"), "--at", "at", "--json"
    )
    assert status == 0, err
    found = json.loads(out)
    assert found["skewed"] == []
    assert found["sides"][0]["rows"] == 200
    assert len(found["fields"]) == 15


def test_skew_is_said_with_its_cause_and_the_status_is_1(
    ctr: Ctr, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ("--data", str(folder / "users.parquet"), "--at", "at")
    monkeypatch.setenv("CTR_EVENTS", str(folder / "wrong"))
    status, out, err = ctr("skew", *data)
    assert status == 1
    assert out.startswith("field\tside\trows\tdiffer\tlikely cause\nuser_word1\tuser\t200\t")
    assert "user_word1 (written in another way: lower case)" in " ".join(err.split())
    status, out, _ = ctr("skew", *data, "--json")
    [skewed] = [one for one in json.loads(out)["fields"] if one["field"] in json.loads(out)["skewed"]]
    assert status == 1
    assert skewed["causes"][0]["cause"] == "encoding"
    assert skewed["example"].startswith("impression-")
    assert skewed["share"] > 0.5
    assert ctr("skew", *data, "--tolerance", "1")[0] == 0


def test_what_is_missing_is_said(ctr: Ctr, folder: Path, tmp_path: Path) -> None:
    data, events = ("--data", str(folder / "users.parquet")), ("--events", str(folder / "right"))
    pl.DataFrame({"shop": [1]}).write_parquet(tmp_path / "shops.parquet")
    for arguments, said in (
        (data, "CTR_EVENTS"),
        ((*data, "--events", str(tmp_path / "no")), "no such folder"),
        ((*data, *events, "--since", "2030-01-01"), "no answers"),
        ((*data, *events, "--at", "when"), "no column when"),
        (("--data", str(tmp_path / "shops.parquet"), *events), "user_id or item_id"),
    ):
        status, out, err = ctr("skew", *arguments)
        assert (status, out) == (1, "")
        assert said in " ".join(err.split())
