"""A file is encoded once, again when it or the schema changes, and never leaves a half-made folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from app.errors import ConfigError, DataError
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.mapped_dataset import MappedDataset
from app.training.data.readers.bad_rows import BadRows
from app.training.data.source import Source
from app.training.data.split import SplitConfig
from app.training.data.state_files import export_states
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.data.formats.test_tables import FEATURES, csv_text
from tests.training.data.large import SMALL_CHUNKS


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    (tmp_path / "features.yaml").write_text(FEATURES)
    path = tmp_path / "clicks.csv"
    path.write_text(csv_text(400))
    return path


class Progress:
    """Records what is reported while a file is encoded."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.fractions: list[float] = []

    def __call__(self, rows: int, fraction: float) -> None:
        self.rows.append(rows)
        self.fractions.append(fraction)


def read(
    path: Path, report: Progress | None = None, max_bad: float = 0.01, limits: EncodingLimits = SMALL_CHUNKS
) -> Dataset:
    return open_dataset(
        "table", path, features=path.parent / "features.yaml", label="clicked", timestamp="at", max_bad=max_bad,
        cache=path.parent / "cache", report=report, limits=limits,
    )  # fmt: skip


def folders(path: Path) -> list[Path]:
    return sorted(folder for folder in (path.parent / "cache").iterdir() if folder.is_dir())


def test_it_is_read_once_with_progress_and_mapped_ever_after(clicks: Path) -> None:
    report = Progress()
    first = read(clicks, report)
    assert report.rows[-1] == len(first) == 400
    assert report.rows == sorted(report.rows)
    assert len(report.rows) > 10
    assert report.fractions[0] < 0.2 < 0.9 < report.fractions[-1] <= 1.0
    again = Progress()
    second = read(clicks, again)
    assert again.rows == []
    for one, other in zip(encode(first).item, encode(second).item, strict=True):
        assert isinstance(other, np.memmap)
        np.testing.assert_array_equal(one, other)
        with pytest.raises(ValueError, match="read-only"):
            other[0] = 0


def test_another_file_or_schema_is_encoded_anew_and_what_is_out_of_date_goes(clicks: Path) -> None:
    read(clicks)
    before = folders(clicks)
    features = clicks.parent / "features.yaml"
    features.write_text(FEATURES.replace("max_length: 3", "max_length: 2"))
    report = Progress()
    read(clicks, report)
    assert report.rows
    assert len(folders(clicks)) == 2, "both schemas may be in use"
    clicks.write_text(csv_text(500))
    assert len(read(clicks)) == 500
    assert len(folders(clicks)) == 1
    assert folders(clicks)[0] not in before


@pytest.mark.parametrize("damage", ["truncated", "no meta", "half a meta"])
def test_a_damaged_folder_is_made_again(clicks: Path, damage: str) -> None:
    expected = encode(read(clicks)).item.keys.copy()
    folder = folders(clicks)[0]
    if damage == "truncated":
        os.truncate(folder / "item_keys.bin", 1000)
    elif damage == "no meta":
        (folder / "meta.json").unlink()
    else:
        (folder / "meta.json").write_text('{"format": 1')
    report = Progress()
    np.testing.assert_array_equal(encode(read(clicks, report)).item.keys, expected)
    assert report.rows


SLOW = """\
import os, sys, time
from pathlib import Path
from app.training.data.catalogue import open_dataset
from app.training.data.encoding_limits import EncodingLimits
def wait(rows, fraction):
    print(rows, flush=True)
    time.sleep(60)
folder = Path(sys.argv[1])
open_dataset("table", folder / "clicks.csv", features=folder / "features.yaml", label="clicked", timestamp="at",
             cache=folder / "cache", report=wait, limits=EncodingLimits(in_memory_bytes=0))
"""


def test_a_killed_run_leaves_nothing_that_looks_complete(clicks: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(clicks.parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "400"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [folder.name.startswith(".tmp-") for folder in folders(clicks)] == [True]
    started = time.perf_counter()
    assert len(read(clicks)) == 400
    assert time.perf_counter() - started < 30, "the lock went with the process"
    assert [folder.name.startswith(".tmp-") for folder in folders(clicks)] == [False]


def test_too_many_bad_rows_stop_it_early_and_leave_nothing(clicks: Path) -> None:
    clicks.write_text(csv_text(20) + "a,b\n" * 20 + csv_text(4000).partition("\n")[2])
    report = Progress()
    with pytest.raises(DataError, match=r"20 bad rows.*have not 7 columns.*rows 21, 22"):
        read(clicks, report, max_bad=0.001)
    assert not report.rows or report.rows[-1] < 1000
    assert folders(clicks) == []
    data = read(clicks, max_bad=0.01)
    assert (len(data), data.skipped.count) == (4020, 20)
    with pytest.raises(DataError, match="20 bad rows"):
        read(clicks, max_bad=0.001)  # made before, with more patience


def test_unfit_values_are_counted_and_remembered(clicks: Path) -> None:
    clicks.write_text(csv_text(400).replace(",7.5,", ",cheap,").replace(",300.5,", ",dear,"))
    for _ in range(2):
        skipped = encode(read(clicks)).unreadable["price"]
        assert (skipped.count, skipped.first_rows, skipped.fate) == (2, (8, 301), "read as missing")
    clicks.write_text(csv_text(400).replace(".5,", "EUR,"))
    with pytest.raises(DataError, match="price cannot be read as numeric"):
        read(clicks)


@pytest.mark.parametrize("kind", ["time", "random"])
def test_parts_are_prepared_as_those_of_frames_are(clicks: Path, kind: str) -> None:
    split = SplitConfig(kind="time" if kind == "time" else "random")
    # As for data larger than memory: everything that is made of it lies in files.
    mapped = split.parts(read(clicks, limits=replace(SMALL_CHUNKS, heap_array_bytes=0)), None)
    encoded = [encode(part) for part in mapped]
    preprocessing = PreprocessingFit().fit(mapped[0].schema, encoded[0])
    rows = [expand(preprocessing, part) for part in encoded]
    frames = split.parts(read(clicks, limits=DEFAULT_LIMITS), None)
    assert not isinstance(frames[0], MappedDataset)
    expected = [encode(part) for part in frames]
    fitted = PreprocessingFit().fit(frames[0].schema, expected[0])
    assert preprocessing.vocabulary_V.tolist() == fitted.vocabulary_V.tolist()
    assert preprocessing.numerics == fitted.numerics
    for part, other in zip(rows, (expand(fitted, part) for part in expected), strict=True):
        for one, two in zip(part[:3], other[:3], strict=True):
            np.testing.assert_array_equal(one.numpy(), two.numpy())
    assert {path.suffix for path in (clicks.parent / "cache").iterdir()} == {"", ".lock"}


def test_the_last_state_is_the_newest_row_of_each(clicks: Path, tmp_path: Path) -> None:
    assert export_states(read(clicks), tmp_path / "out") == {"user": 7, "item": 9}
    lines = (tmp_path / "out" / "items.jsonl").read_text().splitlines()
    assert '{"id":"3","price":"399.5","tags":"a|b1"}' in lines


def test_examples_are_real_rows_spread_over_the_file(clicks: Path) -> None:
    data = read(clicks)
    examples = data.examples()
    assert 0 < len(examples) == len(examples.user) == len(examples.item)
    prices = [float(price) for price in examples.item["price"].to_list()]
    assert min(prices) < 40
    assert max(prices) > 360


def test_a_cache_that_cannot_be_says_what_to_do(clicks: Path) -> None:
    (clicks.parent / "cache").write_text("a file")
    with pytest.raises(ConfigError, match="name another folder with --cache"):
        read(clicks)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_cells_in_quotes_and_every_kind_of_bad_line(clicks: Path, end: str) -> None:
    text = csv_text(100).replace("\n", end).encode()
    text += b'"u, ""x""' + end.encode() + b'2",01,2,3.5,"a|b",5,1' + end.encode()  # over two lines, one row
    text += end.encode() + b"u1,01" + end.encode() + b"u\xff,01,2,3,a,5,1" + end.encode() + b"u9,01,2,3,a,6,1"
    clicks.write_bytes(b"\xef\xbb\xbf" + text)
    data = read(clicks, max_bad=0.1)
    assert len(data) == 102
    assert data.skipped.first_rows == (102, 103)
    assert "1 have not 7 columns, 1 are not UTF-8" in str(data.skipped)
    users = {row["user"] for row in data.examples().user.to_dicts()}
    assert f'u, "x"{end}2' in users
    assert "u9" in users


def test_a_source_may_not_read_what_tells_the_answer(clicks: Path) -> None:
    data = read(clicks)
    assert isinstance(data, MappedDataset)
    assert data.origin is not None
    with pytest.raises(ConfigError, match="tell the answer"):
        Source("x", clicks, data.schema, data.origin.chunks, "price")
    bad = BadRows("x")
    assert sum(len(part.labels_N) for part in data.origin.usable_rows(bad)) == bad.rows == 400
    assert isinstance(data.user, pl.DataFrame)
