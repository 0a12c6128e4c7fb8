"""The benchmark's generated file has Criteo's shape, and its processes keep within their memory limit."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from app.training.data.formats.criteo import HEADER
from benchmarks import encoding, encoding_processes


def test_the_generated_file_has_criteos_shape(tmp_path: Path) -> None:
    path = tmp_path / "day_0.tsv"
    assert encoding.generate(path, 20_000) == 20_000
    frame = pl.read_csv(path, separator="\t", has_header=False, new_columns=HEADER)
    assert frame.shape == (20_000, 40)
    assert frame["label"].mean() == pytest.approx(0.256, abs=0.02)
    for index, cardinality in enumerate(encoding.CARDINALITIES):
        column = frame[f"C{index + 1}"].cast(pl.String)
        assert column.n_unique() <= cardinality + 1
        assert column.null_count() / 20_000 == pytest.approx(encoding.MISSING_CATEGORIES.get(index, 0.0), abs=0.02)
    assert frame["C3"].n_unique() > 5_000, "the long tail"
    assert frame["I12"].null_count() / 20_000 == pytest.approx(0.77, abs=0.02)
    other = tmp_path / "again.tsv"
    encoding.generate(other, 20_000)
    assert other.read_bytes() == path.read_bytes()


def test_a_process_that_needs_more_than_its_limit_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "day_0.tsv"
    encoding.generate(path, 30_000)
    done = encoding._task("encode", path, tmp_path / "cache", encoding.LIMIT_MB)
    assert done["rows"] == 30_000
    assert 0 < done["peak_mb"] <= encoding.LIMIT_MB
    with pytest.raises(SystemExit, match="encode failed"):
        encoding._task("encode", path, tmp_path / "other", 60)


def test_the_page_says_what_was_held_and_what_was_missed() -> None:
    result = {
        "machine": {"commit": "abc", "cores": 2, "cpu": "a processor"},
        "load_average": (0.1, 0, 0),
        "speed": {"rows": 9, "megabytes": 1, "pandas": 100.0, "ours": 40.0, "ours_again": 9e9, "ratio": 0.4},
        "memory": {"file_mb": 40, "limit_mb": 10, "peak_mb": 9, "rows": 5, "within": True},
    }
    page = encoding._page(result, 3)
    assert "| read, encode, write | 40 | 0.40 | **missed**: at least 0.5 |" in page
    assert "held: within the limit" in page


def test_the_parquet_files_have_the_rows_of_the_text(tmp_path: Path) -> None:
    encoding_processes.write_files(tmp_path, 1003)
    text = pl.read_csv(tmp_path / "day_0.tsv", separator="\t", has_header=False, new_columns=HEADER, infer_schema=False)
    assert pl.read_parquet(tmp_path / "parquet").equals(text)
    assert len(list((tmp_path / "parquet").iterdir())) == encoding_processes.FILES
