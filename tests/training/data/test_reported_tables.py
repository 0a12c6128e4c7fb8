"""Reported files: each trains to the rows that it says, or is refused in one line that says what to change."""

from __future__ import annotations

import gzip
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from app.errors import ConfigError, CtrError, DataError
from app.features.loading.record_file import RecordFile
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.data.schema_proposal import propose_schema
from app.training.data.split import SplitConfig
from app.training.data_summary import summarise_data
from app.training.preprocessing.encode import encode
from tests.shared_cases import case

TITLES = """
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: item_id, entity: item, type: categorical, id: true}
  - {name: title, entity: item, type: categorical}
"""


def table(path: Path, features: Path | None = None, timestamp: str | None = "at", escape: str | None = None) -> Dataset:
    features = features or case("base/features.yaml")
    return open_dataset("table", path, features=features, label="clicked", timestamp=timestamp, escape=escape)


def assert_same_rows(one: Dataset, other: Dataset) -> None:
    np.testing.assert_array_equal(one.labels_N, other.labels_N)
    if one.timestamps_N is not None and other.timestamps_N is not None:
        np.testing.assert_array_equal(one.timestamps_N, other.timestamps_N)
    encoded, expected = encode(one), encode(other)
    for side in ("user", "item"):
        slots, other_slots = encoded.side(side), expected.side(side)
        np.testing.assert_array_equal(slots.keys, other_slots.keys)
        np.testing.assert_array_equal(slots.values, other_slots.values)


def titles(tmp_path: Path) -> Path:
    path = tmp_path / "features.yaml"
    path.write_text(TITLES)
    return path


@pytest.mark.parametrize("name", ["05/inches.csv", "05/inches_one_row.csv", "05/begins_quoted.tsv"])
def test_quotes_are_letters_but_where_they_begin_a_cell(name: str, tmp_path: Path) -> None:
    data = table(case(name), titles(tmp_path), None)
    assert (len(data), data.skipped.count) == (400, 0)
    assert set(data.item["title"]) <= {"Plain", 'Screen 42" black', 'TV 55"', "Deluxe edition"}
    assert any('"' in title for title in data.item["title"])
    assert [dict(record.values)["title"] for record in RecordFile(case(name))] == data.item["title"].to_list()


@pytest.mark.parametrize("name", ["06/spark.csv", "06/spark_even.csv"])
def test_escapes_of_spark_are_refused_or_read_as_said(name: str, tmp_path: Path) -> None:
    path = case(name)
    with pytest.raises(DataError, match=r"--escape '\\' reads it so") as refused:
        table(path, titles(tmp_path), None)
    assert "\n" not in str(refused.value)
    with pytest.raises(DataError, match=r"--escape '\\' reads it so"):
        list(RecordFile(path))
    data = table(path, titles(tmp_path), None, "\\")
    items = {record.values["id"]: record.values["title"] for record in RecordFile(case("06/same_items.jsonl"))}
    assert len(data) == 400
    expected = {'the "best" one, really', "Plain"} | ({'size 7"'} if name == "06/spark.csv" else set())
    assert set(data.item["title"]) == expected
    if name == "06/spark_even.csv":
        assert data.item["title"].to_list() == [items[item] for item in data.item["item_id"]]
    assert [record.values["title"] for record in RecordFile(path, escape="\\")] == data.item["title"].to_list()


def test_another_escape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("clicked,user_id,item_id,title\n0,1,2,3\n")
    with pytest.raises(ConfigError, match="--escape /"):
        table(tmp_path / "a.csv", titles(tmp_path), None, "/")
    with pytest.raises(ConfigError, match="--escape /"):
        RecordFile(tmp_path / "a.csv", escape="/")


def test_a_mark_of_the_encoding_is_none_of_the_first_value() -> None:
    assert_same_rows(table(case("07/clicks_bom.jsonl")), table(case("base/clicks.csv")))
    assert [r.values for r in RecordFile(case("07/items_bom.jsonl"))] == [
        r.values for r in RecordFile(case("base/items.jsonl"))
    ]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".jsonl.gz"])
def test_the_mark_is_read_in_every_text_format(suffix: str, tmp_path: Path) -> None:
    rows = pl.read_csv(case("base/clicks.csv"), infer_schema=False)
    text = rows.write_ndjson() if "json" in suffix else rows.write_csv(separator="\t" if suffix == ".tsv" else ",")
    raw = b"\xef\xbb\xbf" + text.encode()
    path = tmp_path / f"clicks{suffix}"
    path.write_bytes(gzip.compress(raw) if suffix.endswith(".gz") else raw)
    assert_same_rows(table(path), table(case("base/clicks.csv")))
    assert next(iter(RecordFile(path))).values["clicked"] == "0"


def test_folders_of_days_and_hours_are_read_in_order_with_their_keys() -> None:
    data, base = table(case("17/clicks")), table(case("base/clicks.csv"))
    np.testing.assert_array_equal(data.timestamps_N, base.timestamps_N)
    np.testing.assert_array_equal(data.labels_N, base.labels_N)
    assert_frame_equal(data.item, table(case("04/datetime.parquet")).item)
    assert data.user["hour"].unique(maintain_order=True).to_list() == [0, 6, 12, 18]
    by_day = table(case("17/clicks"), timestamp="day")
    assert by_day.timestamps_N is not None
    assert sorted(set(by_day.timestamps_N.tolist())) == [1793491200 + 86400 * day for day in range(4)]
    records = list(RecordFile(case("17/clicks")))
    assert {(record.values["day"], record.values["hour"]) for record in records} == {
        ("2026-11-01", 0),
        ("2026-11-02", 6),
        ("2026-11-03", 12),
        ("2026-11-04", 18),
    }
    assert [record.row for record in records] == list(range(1, 401))


def test_a_part_without_rows_adds_none(tmp_path: Path) -> None:
    features = tmp_path / "features.yaml"
    lines = case("base/features.yaml").read_text().splitlines(keepends=True)
    features.write_text("".join(line for line in lines if "hour" not in line))
    assert_same_rows(table(case("17/with_empty_part"), features), table(case("base/clicks.csv"), features))


def folder(root: Path, parts: dict[str, str]) -> Path:
    for name, text in parts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


HEADER = "clicked,user_id,item_id,title\n"


def test_what_a_folder_may_hold_beside_its_parts(tmp_path: Path) -> None:
    features = titles(tmp_path)
    parts = {
        f"data/h={hour}/part-{part}.csv": f"{HEADER}{part % 2},u,i{hour},t\n" for hour in (9, 10) for part in (1, 2)
    }
    others = {
        "data/_SUCCESS": "",
        "data/h=9/.part-1.csv.crc": "x",
        "data/_temporary/0/part-1.csv": "x",
        "data/notes.md": "x",
    }
    data = table(folder(tmp_path, parts | others | {"data/h=9/part-3.csv": ""}) / "data", features, None)
    assert data.item["item_id"].to_list() == ["i9", "i9", "i10", "i10"]
    assert data.notes == ("passed over, as no tables by their names: notes.md",)
    for name, complaint in {
        "data/h=9/part-4.csv.zst": "compressed: unpack it",
        "data/h=9/part-4.jsonl": "several kinds",
        "data/g=1/part-1.csv": "other keys",
    }.items():
        (folder(tmp_path, {name: HEADER}) / name).stat()
        with pytest.raises(CtrError, match=complaint) as refused:
            table(tmp_path / "data", features, None)
        assert "\n" not in str(refused.value)
        (tmp_path / name).unlink()
        shutil.rmtree(tmp_path / "data/g=1", ignore_errors=True)
    (tmp_path / "data/gone.csv").symlink_to(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="link to a file that is not there"):
        table(tmp_path / "data", features, None)


def test_links_are_followed_and_do_not_run_in_circles(tmp_path: Path) -> None:
    features = titles(tmp_path)
    root = folder(tmp_path, {"elsewhere/part.csv": f"{HEADER}0,u,i,t\n1,u,i,t\n"}) / "elsewhere"
    (tmp_path / "data").mkdir()
    (tmp_path / "data/day=1").symlink_to(root)
    (root / "again").symlink_to(tmp_path / "data")
    assert len(table(tmp_path / "data", features, None)) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [("__HIVE_DEFAULT_PARTITION__", None), ("a%2Fb", "a/b"), ("1=2", "1=2"), ("07", 7), ("0x1", "0x1"), ("-3", -3)],
)
def test_keys_of_folders_are_read_as_spark_reads_them(value: str, expected: object, tmp_path: Path) -> None:
    features = titles(tmp_path)
    rows = "clicked,user_id,item_id\n0,u,i\n1,u,i\n"
    root = folder(tmp_path, {f"data/title={value}/a.csv": rows}) / "data"
    assert table(root, features, None).item["title"].to_list() == [expected] * 2
    assert table(root / f"title={value}" / "a.csv", features, None).item["title"].to_list() == [expected] * 2
    assert table(tmp_path / "data" / "title=*" / "*.csv", features, None).item["title"].to_list() == [expected] * 2
    assert [record.values["title"] for record in RecordFile(root)] == [expected] * 2


def test_a_file_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    features = titles(tmp_path)
    parts = {"data/a.csv": f"{HEADER}0,u,i,t\n1,u,i,t\n", "data/b.csv": "clicked,user_id,item_id\n0,u,i\n1,u,i\n"}
    with pytest.raises(DataError, match=r"b\.csv: no column title; it has clicked, user_id, item_id"):
        table(folder(tmp_path, parts) / "data", features, None)


def test_parts_may_differ_in_the_order_and_the_types_of_columns(tmp_path: Path) -> None:
    features = titles(tmp_path)
    (tmp_path / "data").mkdir()
    rows = {"clicked": [0, 1], "user_id": [1, 2], "item_id": ["a", "b"], "title": ["x", None]}
    one = pl.DataFrame(
        rows, schema={"clicked": pl.Int64, "user_id": pl.Int64, "item_id": pl.String, "title": pl.String}
    )
    other = one.cast({"clicked": pl.Int8, "user_id": pl.UInt32, "item_id": pl.Categorical, "title": pl.Categorical})
    one.write_parquet(tmp_path / "data/a.parquet")
    other.select("title", "item_id", "user_id", "clicked").write_parquet(tmp_path / "data/b.parquet")
    one.write_parquet(tmp_path / "one.parquet")
    data, base = table(tmp_path / "data", features, None), table(tmp_path / "one.parquet", features, None)
    twice = replace(
        base,
        user=pl.concat([base.user] * 2),
        item=pl.concat([base.item] * 2),
        labels_N=np.tile(base.labels_N, 2),
    )
    assert_same_rows(data, twice)


@pytest.mark.parametrize("name", ["iso.csv", "space.csv", "datetime.parquet", "datetime_ns_tz.parquet"])
def test_times_in_any_form_are_those_of_the_plain_file(name: str) -> None:
    assert_same_rows(table(case(f"04/{name}")), table(case("base/clicks.csv")))


@pytest.mark.parametrize("name", ["date.csv", "date.parquet"])
def test_dates_are_their_first_seconds(name: str) -> None:
    data, base = table(case(f"04/{name}")), table(case("base/clicks.csv"))
    assert data.timestamps_N is not None
    assert base.timestamps_N is not None
    np.testing.assert_array_equal(data.timestamps_N, base.timestamps_N // 86400 * 86400)


@pytest.mark.parametrize(
    "name",
    [
        "base/clicks.csv",
        *(
            f"04/{name}"
            for name in (
                "date.csv",
                "iso.csv",
                "space.csv",
                "date.parquet",
                "datetime.parquet",
                "datetime_ns_tz.parquet",
            )
        ),
    ],
)
def test_the_time_is_proposed(name: str) -> None:
    assert propose_schema(case(name)).timestamp == "at"


@pytest.mark.parametrize("name", ["42/mixed_units", "42/today_ms.parquet"])
def test_units_that_differ_are_one_time(name: str) -> None:
    data = table(case(name))
    assert_same_rows(data, table(case("base/clicks.csv")))
    window = summarise_data({"train": data})["train"]
    assert window["from"] == "2026-09-21T14:13:20+00:00"
    assert window["to"] == "2026-09-25T17:58:20+00:00"


def test_numbers_of_several_units_are_one_time(tmp_path: Path) -> None:
    features = titles(tmp_path)
    (tmp_path / "data").mkdir()
    seconds = [1790000000 + 900 * row for row in range(40)]
    for part, units in enumerate((1, 10**3, 10**6, 10**9)):
        times = [at * units for at in seconds[part * 10 : part * 10 + 10]]
        rows = [f"{row % 2},u,i,t,{at}" for row, at in enumerate(times)]
        (tmp_path / f"data/{part}.csv").write_text("\n".join(["clicked,user_id,item_id,title,at", *rows]))
    data = table(tmp_path / "data", features)
    assert data.timestamps_N is not None
    assert data.timestamps_N.tolist() == seconds


@pytest.mark.parametrize(
    ("at", "complaint"),
    [
        ("05/11/2023", "at has the day or the month first, nobody knows which: write 2026-11-05"),
        ("11/05/2023 02:13:20 PM", "at has the day or the month first"),
        ("9999-12-31", "at is before 1970 or after 2100, as placeholders are"),
        ("-1", "at is before 1970 or after 2100"),
        ("253402300799", "at is no number and no ISO 8601 time"),
        ("2023-W45-7", "at is no number and no ISO 8601 time: write it as 2026-11-05T10:11:12Z or as seconds"),
        ("soon", "at is no number"),
    ],
)
def test_rows_without_a_time_that_can_be_are_named(at: str, complaint: str, tmp_path: Path) -> None:
    rows = [f"{row % 2},u,i,t,{1790000000 + row}" for row in range(200)] + [f"0,u,i,t,{at}"]
    (tmp_path / "a.csv").write_text("\n".join(["clicked,user_id,item_id,title,at", *rows]))
    data = table(tmp_path / "a.csv", titles(tmp_path))
    assert len(data) == 200
    assert str(data.skipped).startswith(f"1 bad rows left out ({complaint}")
    assert data.skipped.first_rows == (201,)


def test_a_test_file_that_is_older_is_refused() -> None:
    rows = table(case("42/today_ms.parquet"))
    assert rows.timestamps_N is not None
    older, newer = rows.take(np.arange(100)), rows.take(np.arange(100, 400))
    with pytest.raises(DataError, match="the test rows are older than the training rows"):
        SplitConfig().parts(newer, older)
    assert len(SplitConfig(kind="random").parts(newer, older)[2]) == 100


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Asia/Shanghai"])
def test_a_datetime_may_be_a_feature_in_any_unit(
    unit: Literal["ms", "us", "ns"], zone: str | None, tmp_path: Path
) -> None:
    at = (pl.Series("title", [1790000000, 1790000900]) * 1000).cast(pl.Datetime("ms", zone)).dt.cast_time_unit(unit)
    pl.DataFrame({"clicked": [0, 1], "user_id": ["u", "v"], "item_id": ["i", "j"]}).with_columns(at).write_parquet(
        tmp_path / "a.parquet"
    )
    hour, offset = (22, "+08:00") if zone else (14, "")
    written = [f"2026-09-21T{hour}:{minute}:20{offset}" for minute in (13, 28)]
    assert table(tmp_path / "a.parquet", titles(tmp_path), None).item["title"].to_list() == written


def test_bad_rows_of_a_folder_are_named_by_file(tmp_path: Path) -> None:
    part = HEADER + "0,u,i,t\n1,u,i,t\n"
    root = folder(tmp_path, {"data/day=1/a.csv": part, "data/day=2/a.csv": part + "0,u\n"}) / "data"
    data = table(root, titles(tmp_path), None)
    assert str(data.skipped) == "1 bad rows left out (have not 4 columns; rows 3 of day=2/a.csv)"
    assert [record.place for record in RecordFile(root) if record.problem] == ["day=2/a.csv, line 4"]
