"""Text is read for loading where polars is not installed, as training reads it; parts must have the same columns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from app.errors import DataError
from app.features.loading.record_file import RecordFile


def test_text_is_read_without_polars(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id;title\n1;Screen 42" black\n')
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n')
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    code = (
        "import sys; sys.modules['polars'] = None\n"
        "from pathlib import Path\n"
        "from app.errors import ConfigError\n"
        "from app.features.loading.record_file import RecordFile\n"
        "print([dict(r.values) for name in ('a.csv', 'a.jsonl') for r in RecordFile(Path(name))])\n"
        "try: list(RecordFile(Path('a.parquet')))\n"
        "except ConfigError as error: print(error)\n"
    )
    root = str(Path(__file__).parents[3])
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": root}, check=True
    )
    rows, complaint = run.stdout.splitlines()
    assert rows == """[{'id': '1', 'title': 'Screen 42" black'}, {'id': 1}]"""
    assert "pip install ctr-serving[training]" in complaint


def test_lines_are_counted_through_quoted_line_feeds_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,"two\nlines"\n\n1,"x\ny"\n2\n\n3,z,z\n')
    records = list(RecordFile(path))
    assert [(record.row, record.place) for record in records] == [(1, "line 4"), (2, "line 6"), (3, "line 8")]
    assert [bool(record.problem) for record in records] == [False, True, True]
    assert records[0].values == {"id": "1", "two\nlines": "x\ny"}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_parts_that_lack_a_column_are_refused(suffix: str, tmp_path: Path) -> None:
    for name, columns in {"a": ("id", "age"), "b": ("id",)}.items():
        frame = pl.DataFrame({column: ["1"] for column in columns})
        if suffix == "csv":
            frame.write_csv(tmp_path / f"{name}.csv")
        else:
            frame.write_parquet(tmp_path / f"{name}.parquet")
    for order in ("ab", "ba"):
        (tmp_path / f"{order[0]}.{suffix}").rename(tmp_path / f"1.{suffix}")
        (tmp_path / f"{order[1]}.{suffix}").rename(tmp_path / f"2.{suffix}")
        with pytest.raises(DataError, match="has no column age, which") as refused:
            list(RecordFile(tmp_path))
        assert f"{'2' if order == 'ab' else '1'}.{suffix}: has no column" in str(refused.value)
        (tmp_path / f"1.{suffix}").rename(tmp_path / f"{order[0]}.{suffix}")
        (tmp_path / f"2.{suffix}").rename(tmp_path / f"{order[1]}.{suffix}")
