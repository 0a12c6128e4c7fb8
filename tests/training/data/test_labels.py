"""Labels in the spellings of usual tables are read; others by `--positive`, or refused with that hint."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from app.errors import ConfigError, DataError
from app.features.schema import parse_schema
from app.training.data.catalogue import open_dataset
from app.training.data.column_profile import ColumnProfile
from app.training.data.column_roles import find_label_column
from app.training.data.dataset import Dataset
from app.training.data.formats.table import table_source
from app.training.data.labels import ZERO_OR_ONE, LabelReading
from app.training.data.load_dataset import read_into_memory
from app.training.data.readers.bad_rows import BadRows
from app.training.data.schema_proposal import propose_schema
from app.training.data.split import SplitConfig
from tests.shared_cases import case

SCHEMA = parse_schema("fields: [{name: x, entity: item, type: categorical}]")
ONES = [
    "1",
    "1.0",
    "1.00",
    "1.000000",
    "1e0",
    "1.0e+00",
    "+1",
    "+1.0",
    "true",
    "True",
    "TRUE",
    "t",
    "T",
    "yes",
    "y",
    " 1 ",
]
ZEROS = ["0", "0.0", "0.00", "0e0", "+0", "-0", "0.0e+00", "false", "False", "FALSE", "f", "no", "N", "n", "-1", "-1.0"]
NEITHER = ["", "2", "0.5", "maybe", "NULL", "nan", "inf", "1_0", "0x1", "click"]


def labels(values: list[object], positive: str | None = None, dtype: pl.DataType | None = None) -> list[float | None]:
    return LabelReading(positive).read(pl.Series("clicked", values, dtype=dtype), set()).to_list()


def write(tmp_path: Path, values: list[str]) -> Path:
    path = tmp_path / "rows.csv"
    pl.DataFrame({"clicked": values, "x": ["a"] * len(values)}).write_csv(path)
    return path


def read(tmp_path: Path, values: list[str], positive: str | None = None) -> Dataset:
    path = write(tmp_path, values)
    return read_into_memory(table_source(path, SCHEMA, "clicked", None, labels=LabelReading(positive)))


def test_usual_spellings() -> None:
    assert labels([*ONES, *ZEROS, *NEITHER]) == [1.0] * len(ONES) + [0.0] * len(ZEROS) + [None] * len(NEITHER)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 0, None], pl.Int8()),
        ([1, -1, None], pl.Int64()),
        ([1.0, 0.0, None], pl.Float32()),
        ([True, False, None], pl.Boolean()),
        ([Decimal("1.00"), Decimal("0.00"), None], pl.Decimal(3, 2)),
        ([b"1", b"no", None], pl.Binary()),
        (["yes", "no", None], pl.Categorical()),
    ],
    ids=str,
)
def test_every_type(values: list[object], dtype: pl.DataType) -> None:
    assert labels(values, dtype=dtype) == [1.0, 0.0, None]


def test_what_is_no_scalar_is_no_label() -> None:
    assert labels([[1], [0]], dtype=pl.List(pl.Int64())) == [None, None]


@pytest.mark.parametrize(
    ("positive", "values", "expected"),
    [
        ("2", ["1", "2", "2.0", "", None, "3"], [0, 1, 1, None, None, 0]),
        ("click", ["view", "click", "Click", "NULL"], [0, 1, 0, None]),
        (">=4", ["1", "4", "4.5", "x", ""], [0, 1, 1, 0, None]),
        ("< 0", ["-1", "1"], [1, 0]),
        ("1", ["-1", "0", "1"], [0, 0, 1]),
        ("true", ["True", "no"], [1, 0]),
    ],
)
def test_positive(positive: str, values: list[object], expected: list[float | None]) -> None:
    assert labels(values, positive) == expected


def test_a_threshold_is_a_number() -> None:
    with pytest.raises(ConfigError, match="--positive >=many: many is no number"):
        LabelReading(">=many")


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (["1", "2"], "it holds 1, 2: --positive '2' makes that one a click"),
        (["seen", "sold"], "it holds seen, sold: --positive seen or --positive sold says which one is a click"),
        (["click", "no click"], "--positive click or --positive 'no click' says which one is a click"),
        (["b'0'", "b'1'"], """--positive 'b'"'"'1'"'"'' says which one"""),
        (["", "1"], "it holds 1, and nothing else: write 0 where there was no click"),
        (["1", "2", "3", "4", "5"], "has 5 values, 1 to 5, and a label has 0 and 1: --positive '>=4'"),
        (["a", "b", "c"], "--positive VALUE names the value that is a click"),
    ],
)
def test_others_are_refused_with_what_to_do(values: list[str], hint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        read(tmp_path, values * 20)
    assert hint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_three_labels_are_not_two(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="clicked holds -1 and 0, which are not one class: --positive 1"):
        read(tmp_path, ["-1", "0", "1"] * 10)
    assert read(tmp_path, ["-1", "0", "1"] * 10, "1").labels_N.sum() == 10
    assert read(tmp_path, ["-1", "1"] * 10).labels_N.sum() == 10


def test_shards_see_three_labels_together() -> None:
    shards = [BadRows("x", rows=3, seen={mark}) for mark in ("-1", "0")]
    assert BadRows.of_shards(shards).seen == {"-1", "0"}


def test_one_class_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"every clicked is 0, as none is 7 \(--positive\)"):
        read(tmp_path, ["1", "2"] * 10, "7")
    with pytest.raises(DataError, match="every clicked is 1; there is nothing to learn from"):
        read(tmp_path, ["yes"] * 10)
    rows = read(tmp_path, ["1"] * 5 + ["0"] * 95)
    timed = Dataset(
        rows.name, rows.schema, rows.user, rows.item, rows.labels_N, np.arange(len(rows), dtype=np.int64), rows.source
    )
    with pytest.raises(DataError, match="the validation part has 9 rows, all with label 0: all of one class"):
        SplitConfig().parts(timed, None)


CASES = ["label_fixed", "label_two", "label_exp", "label_plus", "label_tf", "label_yesno", "label_minus"]


@pytest.mark.parametrize("name", CASES)
def test_14_reported_labels(name: str) -> None:
    schema, plain = case("base/features.yaml"), case("base/clicks.csv")
    expected = open_dataset("table", plain, features=schema, label="clicked", timestamp="at")
    found = open_dataset("table", case(f"14/{name}.csv"), features=schema, label="clicked", timestamp="at")
    np.testing.assert_array_equal(found.labels_N, expected.labels_N)


@pytest.mark.parametrize("name", ["label_fixed", "label_exp"])
def test_14_reported_labels_of_libsvm(name: str) -> None:
    path = case(f"14/{name}.svm")
    expected = [float(float(line.split()[0]) > 0) for line in path.read_text().splitlines()]
    assert open_dataset("libsvm", path).labels_N.tolist() == expected


def test_positive_of_libsvm(tmp_path: Path) -> None:
    path = tmp_path / "rows.svm"
    path.write_text("1 1:1\n2 2:1\n" * 20)
    with pytest.raises(DataError, match="--positive '2'"):
        open_dataset("libsvm", path)
    assert open_dataset("libsvm", path, positive="2").labels_N.sum() == 20
    with pytest.raises(ConfigError, match="--positive 2: is for"):
        open_dataset("criteo", path, positive="2")


def test_a_proposed_label_has_both_classes_and_plain_ones_go_first() -> None:
    columns = {
        "mobile": ["yes", "no"] * 5, "one": ["1"] * 10, "minus": ["-1", "0"] * 5, "outcome": ["0", "1"] * 5,
    }  # fmt: skip
    profiles = {name: ColumnProfile(pl.Series(name, values)) for name, values in columns.items()}
    assert find_label_column(Path("rows.csv"), profiles) == "outcome"
    del profiles["outcome"]
    assert find_label_column(Path("rows.csv"), profiles) == "mobile"
    assert LabelReading() == ZERO_OR_ONE


def test_a_threshold_makes_a_schema(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    rows = "".join(f"u{n % 7},i{n % 11},{n * 13 % 5 + 1}\n" for n in range(200))
    path.write_text("user_id,item_id,rating\n" + rows)
    proposal = propose_schema(path, label="rating", positive=">=4")
    assert "--label rating --positive '>=4'" in proposal.text


def test_a_label_of_lists_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"clicked": [[0], [1], [2], [3]], "x": ["a"] * 4}).write_parquet(path)
    with pytest.raises(DataError, match="it holds lists or objects: write the label as 0 and 1"):
        list(table_source(path, SCHEMA, "clicked", None).usable_rows(BadRows(str(path), 0.01)))
