"""The folder of the workers' metrics: removed at the end, and by the next start where nobody was left to do it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from app.runtime.processes.metrics_folder import PREFIX, metrics_folder


def test_folders_of_processes_that_were_killed_are_removed_and_those_in_use_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, other = tmp_path / f"{PREFIX}left", tmp_path / "other"
    for folder in (left, other):
        folder.mkdir()
    (left / "counter_1.db").write_bytes(b"x")
    with metrics_folder() as in_use:
        assert not left.exists()
        (in_use / "counter_1.db").write_bytes(b"x")
        with metrics_folder() as second:
            assert in_use.exists()
            assert second != in_use
        assert not second.exists()
    assert os.listdir(tmp_path) == ["other"]
