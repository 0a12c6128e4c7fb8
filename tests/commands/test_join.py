"""`ctr join` says what it found, and what it needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from tests.command_line import Ctr, command_line
from tests.events.joining.test_join import log_of, write

UNTIL = "2026-09-21T18:00"


@pytest.fixture
def ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctr:
    monkeypatch.delenv("CTR_EVENTS", raising=False)
    return command_line(monkeypatch, capsys)


def test_it_joins_what_is_over_and_goes_on_from_there(
    ctr: Ctr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "events", log_of(1, answers=30))
    monkeypatch.setenv("CTR_EVENTS", str(tmp_path / "events"))
    status, out, err = ctr("join", "--out", str(tmp_path / "out"), "--until", UNTIL, "--json")
    document = json.loads(out)
    assert status == 0
    assert (document["answers"], document["spans"]) == (30, 3)
    assert document["joined_until"] == "2026-09-21T17:00:00+00:00"
    status, out, err = ctr("join", "--out", str(tmp_path / "out"), "--until", UNTIL)
    assert (status, out) == (0, "")
    assert "nothing to join yet: a span of 1h is joined 30m after its end" in " ".join(err.split())
    assert "give --until 2026-09-21 18:30:00 or later" in " ".join(err.split())
    for _ in range(2):
        status, out, err = ctr("join", "--out", str(tmp_path / "all"), "--every", "720h")
    assert "the next one from 20" in " ".join(err.split())


def test_a_label_that_nothing_has_is_told_of(ctr: Ctr, tmp_path: Path) -> None:
    write(tmp_path / "events", log_of(1, answers=30))
    named = ("--events", str(tmp_path / "events"), "--until", UNTIL)
    status, _, err = ctr("join", *named, "--out", str(tmp_path / "out"), "--label", "klick")
    assert status == 0
    assert "no item is positive by feedback of the type 'klick', and" in " ".join(err.split())
    status, _, err = ctr("join", *named, "--out", str(tmp_path / "other"))
    assert "no item is positive" not in " ".join(err.split())


def test_a_log_without_answers_is_said_to_have_none(ctr: Ctr, tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    status, out, err = ctr("join", "--events", str(tmp_path / "events"), "--out", str(tmp_path / "out"))
    assert (status, out) == (0, "")
    assert "nothing to join yet" in " ".join(err.split())
    assert "has no answers" in " ".join(err.split())


def test_what_does_not_fit_is_one_line_that_says_what_to_do(ctr: Ctr, tmp_path: Path) -> None:
    for arguments, said in (
        ([], "CTR_EVENTS"),
        (["--events", str(tmp_path / "no")], "CTR_EVENTS"),
        (["--events", str(tmp_path), "--window", "soon"], "--window"),
        (["--events", str(tmp_path), "--every", "1w"], "--every"),
    ):
        status, out, err = ctr("join", "--out", str(tmp_path / "out"), *arguments)
        assert status != 0
        assert out == ""
        assert said in err
