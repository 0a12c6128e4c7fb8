"""`ctr events check` and `ctr events forget` find the log, and say what they found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.events.hashed_id import hashed_id
from app.events.records import IMPRESSIONS
from app.events.segment import segment_name, segments, write_segment
from app.events.segment_columns import to_batch
from tests.command_line import Ctr, command_line
from tests.events.records import AT_US, blocks, impression


@pytest.fixture
def ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Ctr:
    monkeypatch.delenv("CTR_EVENTS", raising=False)
    monkeypatch.setenv("CTR_MODEL_STORE", str(tmp_path / "model_store"))
    return command_line(monkeypatch, capsys)


def write(folder: Path, *users: str) -> None:
    records = [impression(number)._replace(user_id=user) for number, user in enumerate(users)]
    write_segment(folder, segment_name(IMPRESSIONS, AT_US, "w"), [to_batch(IMPRESSIONS, blocks(records))])


@pytest.mark.parametrize("command", [("check",), ("forget", "42")])
def test_without_a_log_it_says_what_is_missing(ctr: Ctr, tmp_path: Path, command: tuple[str, ...]) -> None:
    for arguments, said in (([], "CTR_EVENTS"), (["--events", str(tmp_path / "no")], "no such folder")):
        status, out, err = ctr("events", *command, *arguments)
        assert (status, out) == (1, "")
        assert said in err


def test_somebody_has_to_be_named(ctr: Ctr, tmp_path: Path) -> None:
    status, out, err = ctr("events", "forget", "", "--events", str(tmp_path))
    assert (status, out) == (1, "")
    assert "name the user" in err


def test_a_user_is_forgotten_by_the_id_or_by_its_hash(
    ctr: Ctr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "42", "7", "42", hashed_id("42", "secret"))
    assert json.loads(ctr("events", "forget", "42", "--events", str(tmp_path), "--json")[1]) == {
        "forgotten": 2,
        "waiting": 0,
        "open_files": 0,
    }
    monkeypatch.setenv("CTR_EVENTS_ID_KEY", "secret")
    assert json.loads(ctr("events", "forget", "42", "--events", str(tmp_path), "--json")[1]) == {
        "forgotten": 1,
        "waiting": 0,
        "open_files": 0,
    }
    assert len(list(segments(tmp_path, IMPRESSIONS))) == 1


def test_a_version_that_is_not_there_is_named_and_the_status_is_1(ctr: Ctr, tmp_path: Path) -> None:
    write(tmp_path, "42")
    status, out, _ = ctr("events", "check", "--events", str(tmp_path), "--json")
    [version] = json.loads(out)["versions"]
    assert status == 1
    assert (version["model"], version["version"]) == ("deepfm", 7)
    assert version["problem"]
