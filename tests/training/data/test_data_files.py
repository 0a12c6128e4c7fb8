"""The files that a folder or a pattern stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import DataError
from app.training.data.readers.table_reader import table_files


def test_folders_and_patterns_without_data_say_so(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match="no file in this folder"):
        table_files(tmp_path)
    with pytest.raises(DataError, match="no file matches"):
        table_files(tmp_path / "day_*.csv")
    (tmp_path / "a.csv").write_text("a\n1\n")
    assert table_files(tmp_path).files == (tmp_path / "a.csv",)
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"several kinds, \.csv and \.jsonl"):
        table_files(tmp_path)
