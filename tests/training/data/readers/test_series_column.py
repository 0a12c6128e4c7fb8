"""Columns encoded at once equal their rows encoded one by one, whatever they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.features.columns import Distinct, Lists, Numbers
from app.features.encoder import Encoder
from app.features.schema import FeatureSchema, parse_schema
from app.features.slots import Slots
from app.features.values import number_of
from app.training.data.readers.series_column import SeriesColumn, series_columns

FIELDS = """\
fields:
  - {name: category, entity: item, type: categorical, source: x}
  - {name: other, entity: item, type: categorical, source: x, default: "7"}
  - {name: number, entity: item, type: numeric, source: x}
  - {name: filled, entity: item, type: numeric, source: x, default: 2.5}
  - {name: parts, entity: item, type: multi_categorical, source: x, separator: "|", max_length: 3}
  - {name: kept, entity: item, type: multi_categorical, source: x, separator: "|", max_length: 2, pooling: sum}
  - {name: whole, entity: item, type: multi_categorical, source: x, max_length: 2, default: [a, b]}
  - {name: heavy, entity: item, type: multi_categorical, source: x, weighted: true, max_length: 2}
"""
ENCODER = Encoder(parse_schema(FIELDS), "item")

texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.text('ab01|.[{"]}:,- e_', max_size=8)
odd_texts = [
    "", " 1", "1_0", "inf", "-nan", "1e400", "3.0", "-0.0", "١", "3e39", "+5", ".5", "0x1", '{"a": 2, "b": 1}', "[1]",
    "NULL", "\\N", "TRUE", "1.0E7", "1e+16", "5.00", "1.0E30",
]  # fmt: skip
numbers_as_text = st.floats().map(str) | st.integers(-(10**20), 10**20).map(str) | st.sampled_from(odd_texts)
columns_of = st.one_of(
    st.lists(st.none() | texts | numbers_as_text, max_size=30).map(lambda v: pl.Series(v, dtype=pl.String)),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=9).map(lambda v: pl.Series(v, dtype=pl.Int64)),
    st.lists(st.none() | st.integers(0, 9), max_size=9).map(lambda v: pl.Series(v, dtype=pl.Int8)),
    st.lists(st.none() | st.floats(), max_size=9).map(lambda v: pl.Series(v, dtype=pl.Float64)),
    st.lists(st.none() | st.floats(width=32), max_size=9).map(lambda v: pl.Series(v, dtype=pl.Float32)),
    st.lists(st.none() | st.booleans(), max_size=9).map(lambda v: pl.Series(v, dtype=pl.Boolean)),
    st.lists(st.none() | st.lists(st.none() | texts, max_size=5), max_size=9).map(
        lambda v: pl.Series(v, dtype=pl.List(pl.String))
    ),
    st.lists(st.none() | st.lists(st.none() | st.integers(-9, 9), max_size=5), max_size=9).map(
        lambda v: pl.Series(v, dtype=pl.List(pl.Int64))
    ),
    st.lists(st.none() | st.lists(st.floats(), max_size=4), max_size=9).map(
        lambda v: pl.Series(v, dtype=pl.List(pl.Float64))
    ),
)


def row_by_row(values: list[Any]) -> Slots:
    # NaN is how tables spell missing, see `without_nan`.
    known = [None if isinstance(value, float) and value != value else value for value in values]
    return ENCODER.encode_many([{"x": value} for value in known], [None] * len(known), on_invalid=lambda _: None)


@given(columns_of)
def test_a_series_is_encoded_as_its_rows_are(series: pl.Series) -> None:
    result = ENCODER.encode_columns({"x": SeriesColumn(series)}, len(series), on_invalid=lambda _: None)
    expected = row_by_row(series.to_list())
    np.testing.assert_array_equal(result.keys, expected.keys)
    np.testing.assert_array_equal(result.values.view(np.uint32), expected.values.view(np.uint32))


def test_the_plain_cases_take_the_whole_column() -> None:
    frame = pl.DataFrame(
        {"t": ["1", "2.5", None, ""], "l": [["a", None], [], None, ["b"]], "s": ["a|b", "c", "", "d|a"]}
    )
    result = series_columns(frame)
    numbers = result["t"].numbers(lambda text: number_of(text, "t"))
    assert numbers is not None
    np.testing.assert_array_equal(numbers, [1, 2.5, np.nan, np.nan])
    for name, lengths in (("l", [2, 0, 0, 1]), ("s", [2, 1, 0, 2])):
        lists = result[name].lists("|")
        assert lists is not None
        assert lists.lengths_N.tolist() == lengths
    assert result["t"].distinct() is result["t"].distinct()
    assert SeriesColumn(pl.Series(["1", "x"])).numbers(lambda text: number_of(text, "t")) is None
    assert SeriesColumn(pl.Series(["[1]", "x"])).lists(None) is None
    assert SeriesColumn(pl.Series(["a|b"] * 20)).lists("|") is None, "cheaper as one distinct value"


class Weighted:
    """A column of lists with weights, as libffm has them, that stands for mappings."""

    def __init__(self, rows: list[dict[str, float]]) -> None:
        self.rows = rows

    def distinct(self) -> Distinct:
        return Distinct(self.rows, np.arange(len(self.rows)))

    def numbers(self, read: Callable[[object], float]) -> Numbers | None:
        return None

    def lists(self, separator: str | None) -> Lists | None:
        items = [item for row in self.rows for item in row]
        weights = np.array([weight for row in self.rows for weight in row.values()], np.float64)
        return Lists(
            Distinct(items, np.arange(len(items))), np.array([len(row) for row in self.rows], np.int64), weights
        )


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@given(st.lists(st.dictionaries(texts, st.floats(width=32), max_size=6), max_size=6))
def test_weighted_lists_too(pooling: str, rows: list[dict[str, float]]) -> None:
    spec = {"name": "x", "entity": "item", "type": "multi_categorical", "weighted": True, "max_length": 3}
    schema = FeatureSchema.model_validate({"fields": ({**spec, "pooling": pooling},)})
    encoder = Encoder(schema, "item")
    result = encoder.encode_columns({"x": Weighted(rows)}, len(rows), on_invalid=lambda _: None)
    expected = encoder.encode_many([{"x": row} for row in rows], [None] * len(rows), on_invalid=lambda _: None)
    np.testing.assert_array_equal(result.keys, expected.keys)
    np.testing.assert_array_equal(result.values, expected.values)
