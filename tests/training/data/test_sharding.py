"""What several processes read and encode, one after the other, is what one process does."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ConfigError, DataError
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.data.encoding_limits import DEFAULT_LIMITS
from app.training.data.mapped_dataset import MappedDataset
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.delimited import delimited_files
from app.training.data.readers.line_blocks import next_line_start
from app.training.data.readers.table_files import TableFiles
from app.training.data.readers.table_reader import table_files
from app.training.data.sharding import plan_shards
from app.training.data.split import SplitConfig
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.job import JobConfig, PreparedData
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.data.formats.test_formats import JSON_FEATURES, libffm_text
from tests.training.data.formats.test_tables import FEATURES, csv_text
from tests.training.data.large import SMALL_CHUNKS
from tests.training.together import together


def rows_of(files: TableFiles) -> tuple[list[tuple[Any, ...]], list[int], int]:
    """The rows, their numbers, and how many there are."""
    bad = BadRows("", 1.0)
    rows: list[tuple[Any, ...]] = []
    numbers: list[int] = []
    for chunk in files(bad):
        rows += chunk.frame.rows()
        numbers += chunk.rows_N.tolist()
    return rows, numbers, bad.rows


def read_by(processes: int, files: TableFiles) -> tuple[list[tuple[Any, ...]], list[int], int]:
    rows: list[tuple[Any, ...]] = []
    numbers: list[int] = []
    before = 0
    for shard in plan_shards(files, processes):
        assert shard.count_rows_before() == before
        shard_rows, shard_numbers, count = rows_of(shard)
        rows += shard_rows
        numbers += [before + number for number in shard_numbers]
        before += count
    return rows, numbers, before


CELLS = st.text(st.sampled_from('ab",\n '), max_size=6)


@settings(deadline=None, max_examples=60)
@given(
    files=st.lists(st.lists(st.tuples(CELLS, CELLS), max_size=12), min_size=1, max_size=4),
    packed=st.sets(st.integers(0, 3)),
    ending=st.sampled_from(["\n", "\r\n"]),
    processes=st.integers(2, 5),
)
def test_shares_of_quoted_files_are_their_rows(
    files: list[list[tuple[str, str]]], packed: set[int], ending: str, processes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, rows in enumerate(files):
            text = io.StringIO()
            csv.writer(text, lineterminator=ending).writerows([("a", "b"), *rows])
            raw = text.getvalue().encode()
            name = Path(folder) / f"{number}.csv"
            if number in packed:
                name.with_suffix(".csv.gz").write_bytes(gzip.compress(raw))
            else:
                name.write_bytes(raw)
        whole = table_files(Path(folder), SMALL_CHUNKS)
        assert read_by(processes, whole) == rows_of(whole)


@settings(deadline=None, max_examples=60)
@given(
    files=st.lists(st.text(st.sampled_from("a\t\n"), min_size=1, max_size=40), min_size=1, max_size=4),
    processes=st.integers(2, 5),
)
def test_shares_of_plain_lines_are_their_rows(files: list[str], processes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(files):
            (Path(folder) / f"{number}.tsv").write_text(text)
        paths = tuple(sorted(Path(folder).iterdir()))
        whole = delimited_files(paths, "\t", ["a", "b"], quoted=False, limits=SMALL_CHUNKS)
        assert read_by(processes, whole) == rows_of(whole)


@settings(deadline=None, max_examples=20)
@given(lengths=st.lists(st.integers(0, 100), min_size=1, max_size=4), processes=st.integers(2, 5))
def test_shares_of_parquet_are_its_rows(lengths: list[int], processes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, length in enumerate(lengths):
            frame = pl.DataFrame({"a": [f"{number}-{row}" for row in range(length)]}, schema={"a": pl.String})
            frame.write_parquet(Path(folder) / f"{number}.parquet", row_group_size=32)
        whole = table_files(Path(folder), SMALL_CHUNKS)
        found = read_by(processes, whole)
        assert found == rows_of(whole)
        assert found[2] == sum(lengths)


@given(
    bad=st.lists(st.sampled_from(["", "short", "long"]), min_size=1, max_size=60),
    borders=st.lists(st.integers(0, 60), max_size=4),
)
def test_bad_rows_of_shares_are_those_of_the_whole(bad: list[str], borders: list[int]) -> None:
    def gathered(reasons: list[str]) -> BadRows:
        found = BadRows("x", rows=len(reasons))
        for row, reason in enumerate(reasons):
            found.add(reason, [row + 1] if reason else [])
        return found

    ends = [0, *sorted(min(border, len(bad)) for border in borders), len(bad)]
    shares = [gathered(bad[start:stop]) for start, stop in itertools.pairwise(ends)]
    assert BadRows.of_shards(shares) == gathered(bad)


def test_a_line_begins_where_no_quote_is_open(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    text = 'a,b\n"x\ny",1\n"z",2\n'
    path.write_text(text)
    begins = [0, 4, 12, 18]
    for at in range(len(text) + 1):
        odd = text[:at].count('"') % 2 == 1
        expected = next(begin for begin in begins if begin >= at)
        for size in (1, 3, 100):
            assert next_line_start(path, at, within_quotes=odd, quoted=True, size=size) == expected


def written(folder: Path, name: str) -> tuple[str, Path, dict[str, Any]]:
    """A format's name, its file or files with some bad rows, and what else it needs."""
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
    format_name, path, options = written(tmp_path, name)
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
    _, path, options = written(tmp_path, "csv")
    config = JobConfig(split=SplitConfig(kind=kind), preparation=PreprocessingFit(min_count=60))

    def prepared(group: ProcessGroup) -> PreparedData:
        data = open_dataset(
            "table", path, **options, max_bad=0.02, cache=tmp_path / "cache", group=group, limits=limits
        )
        assert isinstance(data, MappedDataset) == (size == "mapped")
        return config.build().prepare(data, None, group=group)

    alone = prepared(SINGLE_PROCESS)
    assert len(alone.preprocessing.vocabulary_V) < 20, "the count decides"
    for found in together(3, prepared):
        assert isinstance(found, PreparedData), found
        assert found.preprocessing.vocabulary_V.tolist() == alone.preprocessing.vocabulary_V.tolist()
        price, expected = found.preprocessing.numerics["price"], alone.preprocessing.numerics["price"]
        assert price.borders == expected.borders
        assert (price.mean, price.deviation) == pytest.approx((expected.mean, expected.deviation), rel=1e-12)
        for part, rows in alone.rows.items():
            for one, other in zip(rows, found.rows[part], strict=True):
                np.testing.assert_array_equal(one.numpy(), other.numpy())
    if size == "mapped":
        assert {inside.suffix for inside in (tmp_path / "cache").iterdir()} == {"", ".lock"}, "no shared array stays"


@pytest.mark.parametrize("place", [1, 500, 1001])
def test_too_many_bad_rows_in_one_share_end_all_with_one_message(tmp_path: Path, place: int) -> None:
    _, path, options = written(tmp_path, "csv")
    lines = csv_text(1000).splitlines()
    lines[place:place] = ["a,b"] * 200
    path.write_text("\n".join(lines) + "\n")
    found = together(
        3,
        lambda group: open_dataset(
            "table", path, **options, cache=tmp_path / "cache", group=group, limits=SMALL_CHUNKS
        ),
    )
    assert {type(error) for error in found} == {DataError}
    assert len({str(error) for error in found}) == 1
    assert f"rows {place}, {place + 1}, {place + 2}" in str(found[0])
    assert not [inside for inside in (tmp_path / "cache").iterdir() if inside.is_dir()]


def test_unfit_values_in_a_later_share_are_named_by_their_row(tmp_path: Path) -> None:
    _, path, options = written(tmp_path, "csv")
    lines = csv_text(400).splitlines()
    lines[301:341] = [line.replace(".5,", "EUR,") for line in lines[301:341]]
    path.write_text("\n".join(lines) + "\n")
    found = together(
        2,
        lambda group: open_dataset(
            "table", path, **options, cache=tmp_path / "cache", group=group, limits=SMALL_CHUNKS
        ),
    )
    assert len({str(error) for error in found}) == 1
    assert "price cannot be read as numeric" in str(found[0])
    assert "first in rows 301, 302" in str(found[0])


def test_a_cache_that_cannot_be_ends_all(tmp_path: Path) -> None:
    _, path, options = written(tmp_path, "csv")
    (tmp_path / "cache").write_text("a file")
    found = together(
        2,
        lambda group: open_dataset(
            "table", path, **options, cache=tmp_path / "cache", group=group, limits=SMALL_CHUNKS
        ),
    )
    assert {type(error) for error in found} == {ConfigError}


def test_files_that_differ_between_machines_are_refused(tmp_path: Path) -> None:
    paths = []
    for rank, rows in enumerate((400, 500)):
        (tmp_path / str(rank)).mkdir()
        paths.append(written(tmp_path / str(rank), "csv")[1:])
        paths[rank][0].write_text(csv_text(rows))
    found = together(
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
    assert ["not the same on all machines" in str(error) for error in found] == [True, True]


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


def test_one_file_alone_is_read_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_text(100))
    chunks = list(table_files(path, SMALL_CHUNKS)(BadRows("")))
    assert 0.0 < chunks[0].fraction < 0.5 < chunks[-1].fraction
    assert np.concatenate([chunk.rows_N for chunk in chunks]).tolist() == list(range(1, 101))
