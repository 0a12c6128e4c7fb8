"""CSV and Parquet tables and SparrowRecSys samples are read, and errors name what is wrong with them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from app.errors import ConfigError, DataError, SchemaError
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.data.state_files import export_states
from app.training.preprocessing.encode import encode

FEATURES = """\
fields:
  - {name: user, entity: user, type: categorical, id: true}
  - {name: city, entity: user, type: categorical}
  - {name: item, entity: item, type: categorical, id: true}
  - {name: price, entity: item, type: numeric}
  - {name: tags, entity: item, type: multi_categorical, separator: "|", max_length: 3}
"""


@pytest.fixture
def features(tmp_path: Path) -> Path:
    path = tmp_path / "features.yaml"
    path.write_text(FEATURES)
    return path


def csv_text(rows: int = 40, clicked: str = "clicked") -> str:
    lines = [f"user,city,item,price,tags,at,{clicked}"]
    lines += [f"u{n % 7},0{n % 3},{n % 9},{n}.5,a|b{n % 2},{1000 + n},{n % 2}" for n in range(rows)]
    return "\n".join(lines) + "\n"


def read(
    path: Path, features: Path, label: str | None = "clicked", timestamp: str | None = "at", **options: Any
) -> Dataset:
    return open_dataset("table", path, features=features, label=label, timestamp=timestamp, **options)


def test_csv_gz_and_parquet_become_the_same_slots(tmp_path: Path, features: Path) -> None:
    plain, packed, parquet = tmp_path / "a.csv", tmp_path / "a.csv.gz", tmp_path / "a.parquet"
    plain.write_text(csv_text())
    packed.write_bytes(gzip.compress(csv_text().encode()))
    frame = pl.read_csv(plain, infer_schema=False)
    frame.with_columns(
        pl.col("price").cast(pl.Float64), pl.col("tags").str.split("|"), pl.col("clicked").cast(pl.Int8)
    ).write_parquet(parquet)
    first, *others = [encode(read(path, features)) for path in (plain, packed, parquet)]
    assert first.labels_N.tolist() == [float(n % 2) for n in range(40)]
    for other in others:
        for one, two in zip((*first.user, *first.item), (*other.user, *other.item), strict=True):
            assert (one == two).all()


def test_text_stays_text_so_that_a_code_keeps_its_zeros(tmp_path: Path, features: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_text())
    assert read(path, features).user["city"].to_list()[:3] == ["00", "01", "02"]


def test_parquet_nan_is_missing(tmp_path: Path, features: Path) -> None:
    path = tmp_path / "a.parquet"
    frame = {"user": [1.0, float("nan"), 2.0], "city": ["x"] * 3, "item": [1, 2, 3], "price": [0.5, float("nan"), 2.0]}
    pl.DataFrame({**frame, "tags": [["a"], None, []], "clicked": [True, False, True]}).write_parquet(path)
    encoded = encode(read(path, features, timestamp=None))
    assert not encoded.unreadable
    assert encoded.labels_N.tolist() == [1.0, 0.0, 1.0]


def test_bad_labels_are_left_out_counted_and_named(tmp_path: Path, features: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_text(60) + "u1,01,2,3,a,1,maybe\nu1,01,2,3,a,,1\n")
    data = read(path, features, max_bad=0.04)
    assert len(data) == 60
    assert (data.skipped.count, data.skipped.first_rows) == (2, (61, 62))
    assert "rows 61, 62" in str(data.skipped)
    with pytest.raises(
        DataError,
        match=r"1 clicked is not 0 or 1, 1 at is no number and no ISO 8601 time: write it as .*; rows 61, 62\).*"
        r"more than 1 % of 62 rows.*--max-bad",
    ):
        read(path, features)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("user,city,item,price,tags,at,clicked\n", "no rows"),
        ("user,city,item,tags,at,clicked\nu,1,2,a,1,0\n", "no column price"),
        ("user,city,item,price,tags,at\nu,1,2,3,a,1\n", "no column clicked"),
        (csv_text().replace(",1\n", ",maybe\n"), "bad rows"),
        (csv_text().replace(",0\n", ",1\n"), "nothing to learn"),
        (csv_text() + 2 * "u,1,2,3,a,1,0,too,many\n", "have not 7 columns; rows 41, 42"),
        (csv_text() + 2 * 'u,"1,2,3,a,1,0\n', "open a double quote and do not close it; rows 41, 42"),
        ("user,user,item\n", "twice"),
        ("\x00\xff\xfe garbage", "no column"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, features: Path, text: str, complaint: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=complaint) as caught:
        read(path, features)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_parquet_and_not_there(tmp_path: Path, features: Path) -> None:
    (tmp_path / "a.parquet").write_text("not parquet at all")
    (tmp_path / "none").mkdir()
    for name, complaint in (
        ("a.parquet", "cannot be read"),
        ("b.csv", "no such file"),
        ("none", "no file in this folder"),
    ):
        with pytest.raises(DataError, match=complaint):
            read(tmp_path / name, features)


def test_values_that_fit_no_slot_count_as_missing_and_are_named(tmp_path: Path, features: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_text(40).replace(",3.5,", ",cheap,"))
    encoded = encode(read(path, features))
    assert (encoded.unreadable["price"].count, encoded.unreadable["price"].first_rows) == (1, (4,))
    path.write_text(csv_text(40).replace(".5,", "EUR,"))
    with pytest.raises(DataError, match="price cannot be read as numeric in 40 of 40 rows, first in rows 1, 2"):
        encode(read(path, features))


def test_the_answer_cannot_be_a_feature(tmp_path: Path, features: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_text())
    with pytest.raises(ConfigError, match="city"):
        read(path, features, label="city")


def test_arguments_that_do_not_fit(tmp_path: Path, features: Path) -> None:
    with pytest.raises(ConfigError, match="unknown"):
        open_dataset("netflix", tmp_path)
    with pytest.raises(ConfigError, match="--features"):
        open_dataset("table", tmp_path)
    with pytest.raises(ConfigError, match="--data"):
        open_dataset("table", None, features=features)
    with pytest.raises(ConfigError, match="brings its own"):
        open_dataset("sparrow", tmp_path, label="rating")
    features.write_text("fields: 3")
    with pytest.raises(SchemaError):
        open_dataset("table", tmp_path, features=features)


def test_without_a_better_source_the_last_state_is_the_newest_row(tmp_path: Path, features: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_text(40))
    assert export_states(read(path, features), tmp_path / "out") == {"user": 7, "item": 9}
    lines = (tmp_path / "out" / "items.jsonl").read_text().splitlines()
    assert '{"id":"3","price":"39.5","tags":"a|b1"}' in lines


def test_sparrow_lists_and_targets(tmp_path: Path) -> None:
    names = "movieId,userId,rating,timestamp,label,releaseYear,movieGenre1,movieGenre2,movieGenre3,movieRatingCount,"
    names += "movieAvgRating,movieRatingStddev,userRatedMovie1,userRatedMovie2,userRatedMovie3,userRatedMovie4,"
    names += "userRatedMovie5,userRatingCount,userAvgReleaseYear,userReleaseYearStddev,userAvgRating,userRatingStddev,"
    names += "userGenre1,userGenre2,userGenre3,userGenre4,userGenre5"
    path = tmp_path / "a.csv"
    path.write_text(
        f"{names}\n2,7,3.0,100,0,1995,Drama,,War,5,3.2,0.9,9,,8,,,66,1989,13.1,3.7,0.7,Comedy,,,,\n"
        "3,7,4.0,101,1,,,,,,,,,,,,,,,,,,,,,,\n"
    )
    data = open_dataset("sparrow", path)
    assert data.item["movieGenres"].to_list() == [["Drama", "War"], []]
    assert data.user["userRatedMovies"].to_list() == [["9", "8"], []]
    assert not {"rating", "label", "timestamp"} & {field.raw_name for field in data.schema.fields}
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="SparrowRecSys"):
        open_dataset("sparrow", path)


def test_iso_times_are_times(tmp_path: Path, features: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "user,city,item,price,tags,at,clicked\nu,1,2,3,a,1970-01-02 00:00:01,1\nu,1,2,3,a,1970-01-01T10:00:00Z,0\n"
    )
    assert read(path, features).timestamps_N.tolist() == [86_401, 36_000]
