"""A value, in whatever form and format, has one encoding behind every door, or is refused by every door.

Each example draws a column of one kind of value, writes it as CSV, TSV, JSON lines and Parquet, in a form of each that
says the same, trains, loads and requests it, and compares the slots to the bit.
"""

from __future__ import annotations

import csv
import datetime as dt
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.api.schemas import parse_rank
from app.errors import EncodingError
from app.features.encoder import Encoder
from app.features.loading.record_file import RecordFile
from app.features.loading.stored_text import stored_text
from app.features.schema import FeatureSchema, parse_schema
from app.features.values import FLOAT_EXACT
from app.training.data.formats.table import table_source
from app.training.data.readers.bad_rows import BadRows
from app.training.data.table_encoder import TableEncoder

SCHEMA = parse_schema("""\
missing: ["gone", -77]
fields:
  - {name: category, entity: item, type: categorical, source: x}
  - {name: other, entity: item, type: categorical, source: x, default: "7"}
  - {name: number, entity: item, type: numeric, source: x}
  - {name: filled, entity: item, type: numeric, source: x, default: 2.5, missing: ["?", 5]}
  - {name: several, entity: item, type: multi_categorical, source: x, max_length: 3}
  - {name: split, entity: item, type: multi_categorical, source: x, max_length: 3, separator: "|"}
  - {name: weighted, entity: item, type: multi_categorical, source: x, max_length: 3, weighted: true}
  - {name: summed, entity: item, type: multi_categorical, source: x, max_length: 3, weighted: true, pooling: sum}
""")
NAMES = [one.name for one in SCHEMA.fields]
ENCODERS = {one.name: Encoder(FeatureSchema(fields=(one,), missing=SCHEMA.missing), "item") for one in SCHEMA.fields}
SLOTS = SCHEMA.layout("item").slots
UINT64_MAX = 2**64 - 1
REFUSED = "refused"

Result = Any
"""The slots of one field as bytes, or `REFUSED`."""


@dataclass
class Value:
    """Holds the ways to write one value."""

    texts: list[str]
    """As CSV, TSV and the store hold it."""
    json: list[Any]
    """As JSON lines and requests hold it, beside the texts."""
    columns: Mapping[Any, Any] = field(default_factory=dict)
    """As Parquet holds it, by the type of the column."""
    fields: list[str] = field(default_factory=lambda: NAMES)
    """The fields that it may be for: one of a single category takes no list, and lists that are text for text."""


def whole(number: int) -> Value:
    texts = [str(number), f"{number}.0", f"{number}.00"]
    json: list[Any] = [number] if -(2**63) <= number <= UINT64_MAX else [str(number)]
    columns: dict[Any, Any] = {pl.String: str(number), pl.Binary: str(number).encode()}
    for dtype, low, high in (
        (pl.Int8, -(2**7), 2**7 - 1),
        (pl.UInt16, 0, 2**16 - 1),
        (pl.Int32, -(2**31), 2**31 - 1),
        (pl.Int64, -(2**63), 2**63 - 1),
        (pl.UInt64, 0, UINT64_MAX),
        (pl.Int128, -(2**127), 2**127 - 1),
    ):
        if low <= number <= high:
            columns[dtype] = number
    for scale in (0, 2):
        if abs(number) < 10 ** (38 - scale):
            columns[pl.Decimal(38, scale)] = Decimal(number)
    if abs(number) <= FLOAT_EXACT:
        json.append(float(number))
        texts += [f"{number:.16e}", f"{number:.16E}"]
        columns[pl.Float64] = float(number)
    if abs(number) <= 2**24:
        columns[pl.Float32] = float(number)
    if number == 0:
        texts.append("-0.0")
        json.append(-0.0)
        columns[pl.Float32] = -0.0
    return Value(texts, json, columns)


def real(number: float) -> Value:
    columns: dict[Any, Any] = {pl.Float64: number}
    shortest = float(str(np.float32(number))) if abs(number) < 1e38 else None
    if shortest == number:
        columns[pl.Float32] = number
    if abs(number) < 1e9 and number == round(number, 3):
        columns[pl.Decimal(12, 3)] = Decimal(repr(number))
    return Value([repr(number)], [number], columns)


def beyond_exact(number: float) -> Value:
    """Return a float that is whole, and too large for each whole number near it to be a double."""
    return Value([f"{number:.16e}", f"{number:.16E}"], [number], {pl.Float64: number})


def boolean(truth: bool) -> Value:
    texts = ["true", "True", "TRUE"] if truth else ["false", "False", "FALSE"]
    return Value(texts, [truth], {pl.Boolean: truth, pl.String: texts[1], pl.Enum([texts[0]]): texts[0]})


def written(text: str) -> Value:
    return Value([text], [text], {pl.String: text, pl.Binary: text.encode(), pl.Categorical: text})


def day(date: dt.date) -> Value:
    return Value([date.isoformat()], [date.isoformat()], {pl.Date: date, pl.String: date.isoformat()})


def moment(time: dt.datetime) -> Value:
    text = time.isoformat() if not time.microsecond else time.isoformat().rstrip("0")
    return Value([text], [text], {pl.Datetime("us"): time, pl.String: text})


def span(seconds: int) -> Value:
    text = f"{'-' if seconds < 0 else ''}PT{abs(seconds)}S"
    return Value([text], [text], {pl.Duration("ms"): dt.timedelta(seconds=seconds), pl.String: text})


def several(values: list[Value]) -> Value:
    json = [value.json[0] for value in values]
    text = msgspec.json.encode(json).decode()
    shared = set.intersection(*(set(value.columns) for value in values)) if values else {pl.String}
    columns = {pl.List(dtype): [value.columns[dtype] for value in values] for dtype in shared}
    return Value([text], [json], columns, NAMES[4:])


def weights(drawn: dict[str, float]) -> Value:
    mapping = dict(sorted(drawn.items()))  # the order of slots, which a struct has from its type
    text = msgspec.json.encode(mapping).decode()
    pairs = [{"key": key, "value": weight} for key, weight in mapping.items()]
    columns: dict[Any, Any] = {pl.List(pl.Struct({"key": pl.String, "value": pl.Float64})): pairs}
    if all(weight == round(weight, 2) and abs(weight) < 1e6 for weight in mapping.values()):
        decimals = [{"key": key, "value": Decimal(repr(weight))} for key, weight in mapping.items()]
        columns[pl.List(pl.Struct({"key": pl.Categorical, "value": pl.Decimal(10, 2)}))] = decimals
    if mapping:
        columns[pl.Struct(dict.fromkeys("abc", pl.Float64))] = {key: mapping.get(key) for key in "abc"}
    with_null = mapping | {"z": None}
    return Value([text, msgspec.json.encode(with_null).decode()], [mapping, with_null], columns, NAMES[4:])


ODD_TEXTS = [
    "NULL", "\\N", "NA", "n/a", "nan", "None", "1_000", "1,234", "0x10", "+5", "007", "1e400", "inf", "-0", "١", " 5 ",
    "5", "1.10", "9.90", "1e5", "12e45678", "68fd1e64", "yes", "t", "gone", "?", "-77", "-77.0", "[1", "{", "[1, 2.5]",
    "a|b", "|", '["gone", "b"]', "1.0E400", "1.5E300", "-1.#IND", " ", "5.", ".5", "True|False", "[[1]]", '{"a": "1"}',
    "1e-5",
]  # fmt: skip
EDGES = [2**53, 2**63, UINT64_MAX, -77, 5]
LETTERS = st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"], exclude_characters='",;\t')
wholes = st.integers(-(2**127) + 1, 2**127 - 1) | st.integers(-100, 100) | st.sampled_from(EDGES)
reals = (
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer())
    | st.integers(-(10**6), 10**6).map(lambda number: number / 100).filter(lambda number: not number.is_integer())
    | st.floats(-1e6, 1e6, width=32)
    .map(lambda number: float(str(np.float32(number))))
    .filter(lambda x: not x.is_integer())
)
large = st.floats(2.0**53 + 2, 1.7e308).filter(lambda number: number > 2**53) | st.floats(-1e40, -(2.0**53) - 2)
texts = st.sampled_from(ODD_TEXTS) | st.text(LETTERS, min_size=1, max_size=8)
scalars: dict[str, st.SearchStrategy[Value]] = {
    "whole": wholes.map(whole),
    "real": reals.map(real),
    "beyond exact": large.map(beyond_exact),
    "boolean": st.booleans().map(boolean),
    "text": texts.map(written),
    "date": st.dates().map(day),
    "datetime": st.datetimes().map(moment),
    "duration": st.integers(-(10**6), 10**6).map(span),
}
in_lists = [
    st.integers(-(2**63), 2**63 - 1).map(whole),
    reals.map(real),
    st.booleans().map(boolean),
    texts.map(written),
]
kinds = {
    **scalars,
    **{f"list {n}": st.lists(items, max_size=5).map(several) for n, items in enumerate(in_lists)},
    "weights": st.dictionaries(
        st.sampled_from("abc"), st.floats(-1e39, 1e39) | st.integers(-400, 400).map(lambda n: n / 4), max_size=3
    ).map(weights),
}
columns = st.sampled_from(sorted(kinds)).flatmap(lambda kind: st.lists(st.none() | kinds[kind], min_size=1, max_size=5))
MISSING = Value([""], [None])


def result(slots: Any) -> Result:
    return slots.keys.tobytes() + slots.values.tobytes()


def encoded(raw: object) -> dict[str, Result]:
    """Return what each field makes of a raw value."""
    results: dict[str, Result] = {}
    for name, encoder in ENCODERS.items():
        try:
            results[name] = result(encoder.encode({"x": raw}))
        except EncodingError:
            results[name] = REFUSED
    return results


def trained(path: Path) -> list[dict[str, Result]]:
    """Return what training makes of each row, field by field."""
    encoder, bad = TableEncoder(SCHEMA, str(path), 1.0), BadRows(str(path), 0.0)
    rows: list[dict[str, Result]] = []
    for chunk in table_source(path, SCHEMA, "clicked", None).usable_rows(bad):
        slots = encoder.slots("item", chunk.item, chunk.rows_N)
        for keys_S, values_S in zip(slots.keys, slots.values, strict=True):
            rows.append({name: keys_S[SLOTS[name]].tobytes() + values_S[SLOTS[name]].tobytes() for name in NAMES})
    for name, unfit in encoder.unfit.items():
        for row in unfit.skipped.first_rows:
            rows[row - 1][name] = REFUSED
    return rows


def loaded(path: Path) -> list[dict[str, Result]]:
    """Return what serving makes of what `ctr load` stores of each row, field by field."""
    rows = []
    for record in RecordFile(path):
        assert not record.problem, record.problem
        try:
            rows.append(encoded(stored_text(record.values.get("x"), "x")))
        except EncodingError:
            rows.append(dict.fromkeys(NAMES, REFUSED))
    return rows


def requested(value: Any) -> dict[str, Result]:
    body = {"user_id": "u", "item_ids": ["i"], "item_features": {"i": {"x": value}}}
    return encoded(parse_rank(msgspec.json.encode(body), 10).item_features["i"]["x"])


def compare(found: dict[str, Result], expected: dict[str, Result], names: list[str], what: str) -> None:
    for name in names:
        assert found[name] == expected[name], f"{name}, {what}"


def check(values: list[Value], choose: Callable[[list[Any]], Any], folder: Path) -> None:
    expected = [encoded(value.json[0]) for value in values]
    labels = [str(index % 2) for index in range(len(values))]
    names = next((value.fields for value in values if value is not MISSING), NAMES)
    for value, slots in zip(values, expected, strict=True):
        for text in value.texts:
            compare(encoded(text), slots, names, f"stored {text!r}")
        for json in [*value.json, *value.texts]:
            compare(requested(json), slots, names, f"requested {json!r}")
    paths = []
    for name, delimiter in (("x.csv", ","), ("x.tsv", "\t")):
        paths.append(folder / name)
        with paths[-1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(["clicked", "id", "x"])
            writer.writerows([label, "1", choose(value.texts)] for label, value in zip(labels, values, strict=True))
    paths.append(folder / "x.jsonl")
    lines = [{"clicked": label, "id": 1, "x": choose(value.json)} for label, value in zip(labels, values, strict=True)]
    paths[-1].write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    present = [value for value in values if value is not MISSING]
    shared = set.intersection(*(set(value.columns) for value in present)) if present else {pl.String}
    if shared:
        dtype = choose(sorted(shared, key=str))
        cells = [value.columns.get(dtype) for value in values]
        if isinstance(dtype, pl.Enum):
            dtype = pl.Enum(sorted({cell for cell in cells if cell is not None}))
        paths.append(folder / "x.parquet")
        frame = pl.DataFrame({"clicked": labels, "id": ["1"] * len(labels), "x": pl.Series(cells, dtype=dtype)})
        frame.write_parquet(paths[-1])
    for path in paths:
        content = path.read_bytes()
        for door in (trained, loaded):
            for index, (found, slots) in enumerate(zip(door(path), expected, strict=True)):
                compare(found, slots, names, f"{door.__name__} {path.name}, row {index}: {content[:300]!r}")


def run(column: list[Value | None], data: st.DataObject) -> None:
    values = [MISSING if value is None else value for value in column]
    with tempfile.TemporaryDirectory() as folder:
        check(values, lambda ways: ways[data.draw(st.integers(0, len(ways) - 1))], Path(folder))


@given(columns, st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_value_has_one_encoding_or_one_refusal(column: list[Value | None], data: st.DataObject) -> None:
    run(column, data)


@pytest.mark.parametrize("zero", [whole(0), weights({"a": -0.0})])
@pytest.mark.parametrize("way", range(-1, 12))
def test_zero_has_no_sign_in_any_form(zero: Value, way: int, tmp_path: Path) -> None:
    check([zero], lambda ways: ways[way % len(ways)], tmp_path)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@given(columns, st.data())
@settings(max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_two_thousand_columns_too(column: list[Value | None], data: st.DataObject) -> None:
    run(column, data)
