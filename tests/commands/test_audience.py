"""`ctr audience` says what it needs; the demo runs it, and the version that learned from it goes live."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from tests.command_line import Ctr, command_line
from tests.waiting import until


@pytest.fixture
def ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Ctr:
    monkeypatch.setenv("CTR_DATA_DIR", str(tmp_path))
    return command_line(monkeypatch, capsys)


def test_what_it_lacks_is_said(ctr: Ctr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CTR_EVENTS", raising=False)
    assert "CTR_EVENTS" in ctr("audience")[2]
    monkeypatch.setenv("CTR_EVENTS", str(tmp_path / "events"))
    status, _, err = ctr("audience")
    assert status == 1
    assert "ctr demo" in err
    folder = tmp_path / "features" / "movielens"
    folder.mkdir(parents=True)
    (folder / "users.jsonl").write_text('{"id": "1"}\n')
    (folder / "items.jsonl").write_text('{"id": "1", "genres": ["Comedy"]}\n')
    status, _, err = ctr("audience", "--url", "http://127.0.0.1:1")
    assert status == 1
    assert "does not answer" in err


@pytest.mark.faults
def test_the_demo_learns_from_its_audience(tmp_path: Path) -> None:
    said = tmp_path / "said.txt"
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", "demo", "--port", "0"],
            env={"PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=tmp_path,
            stderr=stderr,
        )
    try:
        until(lambda: "[audience] after" in said.read_text() or process.poll() is not None, 600)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, said.read_text()
    text = said.read_text()
    taken = re.search(r"is live, (\d+) s after", text)
    assert taken, text
    before, after = (float(re.search(rf"{when}: .*: ([\d.]+) clicks", text)[1]) for when in ("before", "after"))  # type: ignore[index]
    assert abs(after - 1) < abs(before - 1)
