"""The rows of the planned shards, one after the other, are the rows of the files."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from app.features.tables.cell_quoting import Quoting
from app.features.tables.delimited_layout import DelimitedLayout
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.delimited import delimited_files
from app.training.data.readers.table_files import TableFiles
from app.training.data.readers.table_reader import table_files
from app.training.data.sharding import plan_shards
from tests.training.data.formats.test_tables import csv_text
from tests.training.data.large import SMALL_CHUNKS


def rows_of(files: TableFiles) -> tuple[list[tuple[Any, ...]], list[int], int]:
    """Return the rows, their numbers, and how many there are, good or bad."""
    bad = BadRows("", 1.0)
    rows: list[tuple[Any, ...]] = []
    numbers: list[int] = []
    for chunk in files(bad):
        rows += chunk.frame.rows()
        numbers += chunk.rows_N.tolist()
    return rows, numbers, bad.rows


def rows_of_shards(shards: int, files: TableFiles) -> tuple[list[tuple[Any, ...]], list[int], int]:
    rows: list[tuple[Any, ...]] = []
    numbers: list[int] = []
    before = 0
    for shard in plan_shards(files, shards):
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
    shards=st.integers(2, 5),
)
def test_shards_of_quoted_files_are_their_rows(
    files: list[list[tuple[str, str]]], packed: set[int], ending: str, shards: int
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
        assert rows_of_shards(shards, whole) == rows_of(whole)


@settings(deadline=None, max_examples=150)
@given(
    files=st.lists(st.text(st.sampled_from('a",\n'), max_size=60), min_size=1, max_size=3),
    shards=st.integers(2, 5),
)
def test_shards_of_files_whose_quotes_are_letters_are_their_rows(files: list[str], shards: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(files):
            (Path(folder) / f"{number}.csv").write_text("a,b\n" + text)
        whole = table_files(Path(folder), SMALL_CHUNKS, escape='"')
        assert rows_of_shards(shards, whole) == rows_of(whole)


@settings(deadline=None, max_examples=60)
@given(
    files=st.lists(st.text(st.sampled_from("a\t\n"), min_size=1, max_size=40), min_size=1, max_size=4),
    shards=st.integers(2, 5),
)
def test_shards_of_plain_lines_are_their_rows(files: list[str], shards: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(files):
            (Path(folder) / f"{number}.tsv").write_text(text)
        paths = tuple(sorted(Path(folder).iterdir()))
        whole = delimited_files(
            paths, fixed=DelimitedLayout(("a", "b"), Quoting("\t"), body=0), quoted=False, limits=SMALL_CHUNKS
        )
        assert rows_of_shards(shards, whole) == rows_of(whole)


@settings(deadline=None, max_examples=20)
@given(lengths=st.lists(st.integers(0, 100), min_size=1, max_size=4), shards=st.integers(2, 5))
def test_shards_of_parquet_are_its_rows(lengths: list[int], shards: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, length in enumerate(lengths):
            frame = pl.DataFrame({"a": [f"{number}-{row}" for row in range(length)]}, schema={"a": pl.String})
            frame.write_parquet(Path(folder) / f"{number}.parquet", row_group_size=32)
        whole = table_files(Path(folder), SMALL_CHUNKS)
        result = rows_of_shards(shards, whole)
        assert result == rows_of(whole)
        assert result[2] == sum(lengths)


def test_the_fraction_and_the_numbers_of_one_file_grow(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_text(100))
    chunks = list(table_files(path, SMALL_CHUNKS)(BadRows("")))
    assert 0.0 < chunks[0].fraction < 0.5 < chunks[-1].fraction
    assert np.concatenate([chunk.rows_N for chunk in chunks]).tolist() == list(range(1, 101))
