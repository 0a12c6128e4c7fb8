"""What several processes encode and prepare together is to the byte what one process does; so are their errors."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from app.errors import ConfigError, DataError
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.data.encoding_limits import DEFAULT_LIMITS
from app.training.data.mapped_dataset import MappedDataset
from app.training.data.split import SplitConfig
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.job import TrainingJob
from app.training.job_config import JobConfig
from app.training.job_results import PreparedData
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.data.formats.test_formats import JSON_FEATURES, libffm_text
from tests.training.data.formats.test_tables import FEATURES, csv_text
from tests.training.data.large import SMALL_CHUNKS
from tests.training.together import together


def write_sample(folder: Path, name: str) -> tuple[str, Path, dict[str, Any]]:
    """Write a sample with some bad rows; return the arguments of `open_dataset`: format, path and options."""
    table = {"features": folder / "features.yaml", "label": "clicked", "timestamp": "at"}
    (folder / "features.yaml").write_text(FEATURES)
    path = folder / "data"
    text = csv_text(400).replace(",333.5,", ",dear,") + 'u1,01\n"u\n5",01,2,3,a,5,1\nu1,01,2,3,a,5,perhaps\n'
    lines = text.splitlines(keepends=True)
    pieces = [lines[0] + "".join(lines[1:150]), lines[0], lines[0] + "".join(lines[150:])]
    if name == "csv":
        path = folder / "clicks.csv"
        path.write_text(text)
        return "table", path, table
    if name == "folder":
        path.mkdir()
        for number, piece in enumerate(pieces):
            (path / f"{number}.csv").write_text(piece)
        (path / "_SUCCESS").touch()
        return "table", path, table
    if name == "pattern":
        for number, piece in enumerate(pieces):
            (folder / f"day_{number}.csv.gz").write_bytes(gzip.compress(piece.encode()))
        return "table", folder / "day_*.csv.gz", table
    if name == "parquet":
        path.mkdir()
        frame = pl.read_csv(csv_text(400).encode(), infer_schema=False)
        for number, start in enumerate((0, 90, 310)):
            stop = (90, 310, 400)[number]
            frame[start:stop].write_parquet(path / f"{number}.parquet", row_group_size=64)
        return "table", path, table
    if name == "jsonl":
        path = folder / "rows.jsonl"
        (folder / "features.yaml").write_text(JSON_FEATURES)
        rows = [
            {"user": n % 7, "taste": {"a": 1.0 + n}, "item": f"i{n % 5}", "price": n, "tags": ["x"],
             "mixed": [1, "1", True, 2.5, None][n // 60], "click": n % 2}
            for n in range(300)
        ]  # fmt: skip
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n[1]\n{}\n")
        return "table", path, {"features": folder / "features.yaml", "label": "click"}
    path = folder / "train.ffm"
    path.write_text(libffm_text() + "1 0:1\n0 0:1:x\n")
    return "libffm", path, {}


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("name", ["csv", "folder", "pattern", "parquet", "jsonl", "libffm"])
def test_processes_write_to_the_byte_what_one_writes(tmp_path: Path, name: str, processes: int) -> None:
    format_name, path, options = write_sample(tmp_path, name)
    reports: list[list[int]] = [[] for _ in range(processes)]

    def opened(cache: str, group: ProcessGroup = SINGLE_PROCESS) -> Dataset:
        report = reports[group.rank]
        return open_dataset(
            format_name, path, **options, max_bad=0.02, cache=tmp_path / cache, group=group, limits=SMALL_CHUNKS,
            report=lambda rows, _: report.append(rows),
        )  # fmt: skip

    alone = opened("one")
    assert isinstance(alone, MappedDataset)
    assert alone.folder is not None
    reports[0].clear()
    for attempt in ("fresh", "again"):
        for data in together(processes, lambda group: opened("many", group)):
            assert isinstance(data, MappedDataset), data
            assert data.folder is not None
            assert (data.skipped, data.folder.unreadable) == (alone.skipped, alone.folder.unreadable)
            for file in alone.folder.folder.glob("*.bin"):
                assert file.read_bytes() == (data.folder.folder / file.name).read_bytes(), file.name
            assert 0 < len(data.examples()) == len(data.examples().user)
            assert data.folder.folder.name == alone.folder.folder.name
            assert {inside.name for inside in data.folder.folder.iterdir()} == {
                inside.name for inside in alone.folder.folder.iterdir()
            }
        assert all(report[-1] == len(alone) for report in reports if attempt == "fresh")
        if attempt == "again":
            assert not any(reports), "the form that is there is used"
        for report in reports:
            report.clear()


@pytest.mark.parametrize("kind", ["time", "random"])
@pytest.mark.parametrize("size", ["mapped", "in memory"])
def test_processes_prepare_together_what_one_prepares(tmp_path: Path, kind: Any, size: str) -> None:
    limits = SMALL_CHUNKS if size == "mapped" else DEFAULT_LIMITS
    _, path, options = write_sample(tmp_path, "csv")
    config = JobConfig(split=SplitConfig(kind=kind), preparation=PreprocessingFit(min_count=60))

    def prepared(group: ProcessGroup) -> PreparedData:
        data = open_dataset(
            "table", path, **options, max_bad=0.02, cache=tmp_path / "cache", group=group, limits=limits
        )
        assert isinstance(data, MappedDataset) == (size == "mapped")
        return TrainingJob(config).prepare(data, None, group=group)

    alone = prepared(SINGLE_PROCESS)
    assert len(alone.preprocessing.vocabulary_V) < 20, "the count decides"
    for results in together(3, prepared):
        assert isinstance(results, PreparedData), results
        assert results.preprocessing.vocabulary_V.tolist() == alone.preprocessing.vocabulary_V.tolist()
        price, expected = results.preprocessing.numerics["price"], alone.preprocessing.numerics["price"]
        assert price.borders == expected.borders
        assert (price.mean, price.deviation) == pytest.approx((expected.mean, expected.deviation), rel=1e-12)
        for part, rows in alone.rows.items():
            for one, other in zip(rows[:3], results.rows[part][:3], strict=True):
                np.testing.assert_array_equal(one.numpy(), other.numpy())
    if size == "mapped":
        assert {inside.suffix for inside in (tmp_path / "cache").iterdir()} == {"", ".lock"}, "no shared array stays"


@pytest.mark.parametrize("first_bad_row", [1, 500, 1001])
def test_too_many_bad_rows_in_one_shard_end_all_with_one_message(tmp_path: Path, first_bad_row: int) -> None:
    _, path, options = write_sample(tmp_path, "csv")
    lines = csv_text(1000).splitlines()
    lines[first_bad_row:first_bad_row] = ["a,b"] * 200
    path.write_text("\n".join(lines) + "\n")
    results = together(
        3,
        lambda group: open_dataset(
            "table", path, **options, cache=tmp_path / "cache", group=group, limits=SMALL_CHUNKS
        ),
    )
    assert {type(error) for error in results} == {DataError}
    assert len({str(error) for error in results}) == 1
    assert f"rows {first_bad_row}, {first_bad_row + 1}, {first_bad_row + 2}" in str(results[0])
    assert not [inside for inside in (tmp_path / "cache").iterdir() if inside.is_dir()]


def test_unfit_values_in_a_later_shard_are_named_by_their_row(tmp_path: Path) -> None:
    _, path, options = write_sample(tmp_path, "csv")
    lines = csv_text(400).splitlines()
    lines[301:341] = [line.replace(".5,", "EUR,") for line in lines[301:341]]
    path.write_text("\n".join(lines) + "\n")
    results = together(
        2,
        lambda group: open_dataset(
            "table", path, **options, cache=tmp_path / "cache", group=group, limits=SMALL_CHUNKS
        ),
    )
    assert len({str(error) for error in results}) == 1
    assert "price cannot be read as numeric" in str(results[0])
    assert "first in rows 301, 302" in str(results[0])


def test_a_cache_that_cannot_be_ends_all(tmp_path: Path) -> None:
    _, path, options = write_sample(tmp_path, "csv")
    (tmp_path / "cache").write_text("a file")
    results = together(
        2,
        lambda group: open_dataset(
            "table", path, **options, cache=tmp_path / "cache", group=group, limits=SMALL_CHUNKS
        ),
    )
    assert {type(error) for error in results} == {ConfigError}


def test_files_that_differ_between_machines_are_refused(tmp_path: Path) -> None:
    paths = []
    for rank, rows in enumerate((400, 500)):
        (tmp_path / str(rank)).mkdir()
        paths.append(write_sample(tmp_path / str(rank), "csv")[1:])
        paths[rank][0].write_text(csv_text(rows))
    results = together(
        2,
        lambda group: open_dataset(
            "table",
            paths[group.rank][0],
            **paths[group.rank][1],
            cache=tmp_path / "cache",
            group=group,
            limits=SMALL_CHUNKS,
        ),
    )
    assert ["not the same on all machines" in str(error) for error in results] == [True, True]
