"""Whatever a table holds, what is proposed for it parses, or one line says why nothing is."""

from __future__ import annotations

import csv
import json
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ConfigError, DataError
from app.features.schema import parse_schema
from app.training.data.schema_proposal import SchemaProposal, propose_schema

DAY = datetime.fromisoformat("2024-05-03T10:11:12")
ODD_TEXTS = [
    "", " ", "NA", "nan", "inf", "-inf", "1e999", "0x1f", "01", "3.0", "1_000", "True", "a|b", "|", ",", "[", "{}",
    '["a"]', '{"a": 1}', "2024-05-03", "2024-05-03T10:11:12Z", "03.05.2024", "10:11", "\u0663", "\U0001f600", '"',
]  # fmt: skip
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(ODD_TEXTS))
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "constant": st.just("x"),
    "null": st.none(),
    "boolean": st.booleans(),
    "small": st.integers(-2, 15),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "seconds": st.integers(1_500_000_000, 1_600_000_000),
    "float": st.floats(),
    "whole float": st.integers(0, 30).map(float),
}
OTHERS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "unsigned": (pl.UInt64, st.integers(0, 2**64 - 1)),
    "float32": (pl.Float32, st.floats(width=32)),
    "date": (pl.Date, st.dates(date(1900, 1, 1), date(2100, 1, 1))),
    "moment": (pl.Datetime("ns", "UTC"), st.timedeltas(timedelta(0), timedelta(99)).map(lambda more: DAY + more)),
    "time of day": (pl.Time, st.just(time(10, 11))),
    "duration": (pl.Duration, st.timedeltas(timedelta(0), timedelta(99))),
    "decimal": (pl.Decimal(10, 2), st.integers(0, 999).map(lambda cents: Decimal(cents) / 100)),
    "binary": (pl.Binary, st.binary(max_size=3)),
    "category": (pl.Categorical, st.sampled_from("abc")),
    "texts": (pl.List(pl.String), st.lists(st.one_of(st.none(), TEXTS), max_size=3)),
    "numbers": (pl.List(pl.Float64), st.lists(st.floats(), max_size=3)),
    "nested": (pl.List(pl.List(pl.Int64)), st.lists(st.lists(st.integers(0, 3), max_size=2), max_size=2)),
    "array": (pl.Array(pl.Int64, 2), st.lists(st.integers(0, 3), min_size=2, max_size=2)),
    "object": (pl.Struct({"a": pl.Int64}), st.fixed_dictionaries({"a": st.integers(0, 3)})),
    "nothing": (pl.Null, st.none()),
}
ODD_NAMES = ["user_id", "item_id", "uid", "ts", "time", "zip", "price", "x y", "a.b", "1", "no", "\u00fc", "-"]
NAMES = st.one_of(
    st.sampled_from(ODD_NAMES),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=6),
)


@st.composite
def tables(draw: st.DrawFn, kinds: dict[str, tuple[Any, st.SearchStrategy[Any]]]) -> pl.DataFrame:
    rows = draw(st.sampled_from([1, 2, 3, 25]))
    names = draw(st.lists(NAMES.filter(lambda name: name != "click"), max_size=5, unique=True))
    columns = [pl.Series("click", draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))]
    for name in names:
        dtype, values = kinds[draw(st.sampled_from(sorted(kinds)))]
        column = draw(st.lists(st.one_of(st.none(), values), min_size=rows, max_size=rows))
        columns.append(pl.Series(name, column, dtype=dtype, strict=False))
    return pl.DataFrame(columns)


def check(path: Path, **options: str) -> None:
    try:
        proposal = propose_schema(path, label="click", **options)
    except (ConfigError, DataError):
        return
    schema = parse_schema(proposal.text)
    names = {field.name for field in schema.fields}
    assert names
    assert not names & set(proposal.left_out)
    assert proposal.timestamp is None or proposal.timestamp in proposal.left_out


POLARS_SCALARS = {"integer": pl.Int64, "small": pl.Int64, "seconds": pl.Int64, "boolean": pl.Boolean, "null": pl.Null}
IN_PARQUET = OTHERS | {
    name: (POLARS_SCALARS.get(name, pl.Float64 if "float" in name else pl.String), values)
    for name, values in SCALARS.items()
}


@settings(max_examples=60)
@given(table=tables(IN_PARQUET))
def test_any_parquet(tmp_path_factory: pytest.TempPathFactory, table: pl.DataFrame) -> None:
    path = tmp_path_factory.mktemp("odd") / "rows.parquet"
    table.write_parquet(path)
    check(path)


@settings(max_examples=40)
@given(table=tables({name: (None, values) for name, values in SCALARS.items()}))
def test_any_csv_and_json_lines(tmp_path_factory: pytest.TempPathFactory, table: pl.DataFrame) -> None:
    folder = tmp_path_factory.mktemp("odd")
    table.write_csv(folder / "rows.csv")
    check(folder / "rows.csv")
    lines = [json.dumps(row) for row in table.to_dicts()]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    check(folder / "rows.jsonl")


@settings(max_examples=40)
@given(st.data())
def test_any_mixture_of_json_values(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    value = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), TEXTS),
        lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXTS, inner, max_size=2)),
        max_leaves=4,
    )
    rows = data.draw(st.lists(st.dictionaries(st.sampled_from(["user_id", "item_id", "x", "ts"]), value), min_size=2))
    path = tmp_path_factory.mktemp("odd") / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, "click": n % 2}) + "\n" for n, row in enumerate(rows)))
    check(path)


@pytest.mark.parametrize("given_id", ["user_id", "item_id"])
def test_a_given_id_that_cannot_be_one_is_said(tmp_path: Path, given_id: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("click,a,b\n" + "".join(f"{n % 2},,{n % 5}\n" for n in range(30)))
    with pytest.raises(ConfigError, match="a cannot be an id: always missing"):
        propose_schema(path, label="click", **{given_id: "a"})


def test_more_columns_than_a_schema_has_fields_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wide.csv"
    lines = [f"{row % 2},{row % 3},{row % 5},{row % 7}" for row in range(60)]
    path.write_text("clicked,a,b,c\n" + "\n".join(lines) + "\n")
    monkeypatch.setattr("app.training.data.schema_proposal.MAX_FIELDS", 2)
    with pytest.raises(ConfigError, match="3 columns can be features, and a schema has at most 2 fields"):
        propose_schema(path)


def test_rows_that_are_all_bad_are_not_called_none(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("clicked,a\n" + "".join(f"{row},{row % 2},x\n" for row in range(5)))
    with pytest.raises(DataError, match=r"no usable rows: 5 bad rows .*have 3 columns, the header 2: R leaves"):
        propose_schema(path)


@pytest.mark.parametrize("form", ["{},50", "{}%", "${}", "1,{:03}.50", "{}.5 €"])
def test_numbers_that_no_field_reads_are_told_how_to_be_written(tmp_path: Path, form: str) -> None:
    path = tmp_path / "rows.tsv"
    lines = [f"{row % 2}\t{row * 11 % 37}\t{form.format(row * 7 % 31)}" for row in range(200)]
    path.write_text("clicked\ta\tprice\n" + "\n".join(lines) + "\n")
    hint = f"; to be numbers, {form.format(0)} and the like are written as 1234.5"
    assert hint in propose_schema(path).text
    copies = [f"{row % 2}\tx{row * 7 % 31}\t{form.format(row * 7 % 31)}" for row in range(200)]
    path.write_text("clicked\titem_id\tprice\n" + "\n".join(copies) + "\n")
    assert propose_schema(path).left_out["price"] == f"says the same as item_id in every row{hint}"


def test_a_decimal_comma_is_no_list_where_semicolons_divide_the_columns(tmp_path: Path) -> None:
    """In another file 1,5 may be a list of two; there the hint says how to have numbers."""

    def proposal(separator: str, values: list[str]) -> SchemaProposal:
        table = [["clicked", "user_id", "item_id", "price"]]
        table += [[f"{row % 2}", f"u{row % 37}", f"i{row % 41}", value] for row, value in enumerate(values)]
        path = tmp_path / "rows.csv"
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter=separator).writerows(table)
        return propose_schema(path)

    prices = [("-1,5", "3")[row % 2] if row % 9 == 0 else f"{row % 6},{row * 7 % 11}" for row in range(200)]
    hint = "to be numbers, -1,5 and the like are written as 1234.5"
    found = proposal(";", prices)
    assert re.search(r"name: price, entity: \w+, type: categorical}", found.text)
    assert f"price is taken for categories; {hint}" in found.notes
    found = proposal(",", prices)
    assert 'type: multi_categorical, separator: ","' in found.text
    assert f"lists divided by ,; {hint}" in found.text
    assert f"price is taken for lists; {hint}" in found.notes
    found = proposal(";", [f"{row % 4},{row % 5},{row % 6}" for row in range(200)])
    assert 'type: multi_categorical, separator: ","' in found.text


def test_a_label_that_training_cannot_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("clicked,a\n" + "".join(f"{('no click', 'click')[row % 2]},{row % 3}\n" for row in range(60)))
    with pytest.raises(ConfigError, match="clicked is not 0 or 1; it holds click, no click: --positive click or"):
        propose_schema(path, label="clicked")
    assert propose_schema(path, label="clicked", positive="click").label == "clicked"


def test_a_first_row_in_place_of_names_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("".join(f"{row % 2},u{row % 5},{row % 7 + 10}\n" for row in range(60)))
    note = "rows.csv: its first line names the columns 0, u0, 10, which are values: add one of names"
    assert note in propose_schema(path).notes
