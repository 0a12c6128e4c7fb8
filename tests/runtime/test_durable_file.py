"""A file is replaced as a whole, and nothing is left behind when that fails."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from app.runtime.durable_file import fsync_path, replace_file


def test_a_file_is_replaced_and_may_be_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    for content in (b"old", b"new"):
        replace_file(path, content)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]
    fsync_path(path)
    fsync_path(tmp_path)


def test_a_replacement_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
