"""Bring columns of Parquet to the few types that every reader knows, so that each value is read as its text would be.

What comes out is text, booleans, 64-bit integers, doubles, lists of these, and lists of (item, weight) for maps and
structs of weights. Bytes that are no UTF-8 and lists of lists stay what they are: no field can read them.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from app.features.values import FLOAT_EXACT, INT64_MAX, canonical_text, iso_duration

WEIGHTED = pl.List(pl.Struct({"item": pl.String, "weight": pl.Float64}))
"""The type of weighted lists. A Parquet map is a list of structs called key and value."""
FIRST_DAY, LAST_DAY = -719_162, 2_932_896
"""The days from year 1 to 9999, since 1970."""
_A_DAY = {"ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)


def plain_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose columns are plain; the number of rows stays."""
    changed = [plain for series in frame if (plain := plain_series(series)) is not series]
    return frame.with_columns(changed) if changed else frame


def plain_series(series: pl.Series) -> pl.Series:
    """Return a column in its plain type, or the column itself."""
    dtype = series.dtype
    if dtype in (pl.String, pl.Boolean, pl.Float64, pl.Null) or dtype in _INTEGERS:
        return series
    if dtype == WEIGHTED:
        return series
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return series.cast(pl.String)
    if isinstance(dtype, pl.Binary):
        return _decoded(series)
    if dtype.is_float():
        return _shortest(series)
    if dtype.is_decimal():
        return _plain_decimals(series)
    if dtype.is_integer():  # of 128 bits
        narrow = series.cast(pl.Int64, strict=False)
        return narrow if narrow.null_count() == series.null_count() else series.cast(pl.String)
    if dtype.is_temporal():
        return _iso_text(series).alias(series.name)
    if isinstance(dtype, pl.Array):
        return plain_series(series.arr.to_list())
    if isinstance(dtype, pl.List):
        return _plain_lists(series)
    if isinstance(dtype, pl.Struct):
        return _weights_of_structs(series)
    return series


def readable_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose rows Python can hold as they are.

    A 32-bit float has other digits as a double, and Python has no times beyond the year 9999 or below a microsecond.
    """
    changed = [plain_series(series) for series in frame if _loses_in_python(series.dtype)]
    return frame.with_columns(changed) if changed else frame


def _loses_in_python(dtype: pl.DataType) -> bool:
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
    return isinstance(inner, pl.DataType) and ((inner.is_float() and inner != pl.Float64) or inner.is_temporal())


def _shortest(series: pl.Series) -> pl.Series:
    """Return 32-bit floats as the doubles of the same shortest text: 9.9, and not 9.899999618530273."""
    return series.cast(pl.String).cast(pl.Float64)


def _plain_decimals(series: pl.Series) -> pl.Series:
    assert isinstance(series.dtype, pl.Decimal)
    if series.dtype.scale == 0:
        narrow = series.cast(pl.Int64, strict=False)
        return narrow if narrow.null_count() == series.null_count() else series.cast(pl.String)
    numbers = series.cast(pl.Float64)
    # Beyond 2^53 a decimal still has all its digits, and a double has not.
    return series.cast(pl.String) if (numbers.abs() > FLOAT_EXACT).any() else numbers


def _decoded(series: pl.Series) -> pl.Series:
    try:
        return series.cast(pl.String)
    except pl.exceptions.PolarsError:
        return series


def _iso_text(series: pl.Series) -> pl.Series:
    """Spell dates, times and durations as `canonical_text` does; what no calendar holds becomes its number."""
    dtype, numbers = series.dtype, series.to_physical()
    if dtype == pl.Time:
        return _without_zeros(series.dt.to_string("%H:%M:%S%.9f"))
    if isinstance(dtype, pl.Duration):
        units = {"ns": 10**9, "us": 10**6, "ms": 10**3}[dtype.time_unit]
        distinct = numbers.drop_nulls().unique()
        texts = [iso_duration(number, units) for number in distinct.to_list()]
        return numbers.replace_strict(distinct, texts, default=None, return_dtype=pl.String)
    a_day = 1 if dtype == pl.Date else _A_DAY[dtype.time_unit]  # type: ignore[attr-defined]
    # Nanoseconds do not reach the ends of the calendar.
    possible = numbers.is_between(max(FIRST_DAY * a_day, -INT64_MAX), min((LAST_DAY + 1) * a_day - 1, INT64_MAX))
    known = series.set(~possible, None)
    if dtype == pl.Date:
        text = known.dt.to_string("%Y-%m-%d")
    else:
        text = _without_zeros(known.dt.to_string("%Y-%m-%dT%H:%M:%S%.9f"))
        if dtype.time_zone:  # type: ignore[attr-defined]
            text = text + known.dt.to_string("%:z")
    return text.zip_with(possible.fill_null(True), numbers.cast(pl.String))


def _without_zeros(text: pl.Series) -> pl.Series:
    return (
        text.str.strip_chars_end("0")
        .str.strip_chars_end(".")
        .str.replace(r":$", ":00")
        .str.replace(r":(\d)$", ":${1}0")
    )


def _plain_lists(series: pl.Series) -> pl.Series:
    assert isinstance(series.dtype, pl.List)
    inner = series.dtype.inner
    items = series.explode(empty_as_null=False, keep_nulls=False)
    rows = pl.Series("row", np.repeat(np.arange(len(series)), series.list.len().fill_null(0).to_numpy()))
    if isinstance(inner, pl.Struct):
        names = [field.name for field in inner.fields]
        return _weights_of_maps(series, rows, items) if names == ["key", "value"] else series
    plain = plain_series(items)
    return series if plain is items else _lists_of(series, rows, plain)


def _weights_of_maps(series: pl.Series, rows: pl.Series, pairs: pl.Series) -> pl.Series:
    """Return maps as lists of (item, weight) without null weights; of two with one key the last weight counts."""
    keys, weights = plain_series(pairs.struct.field("key")), pairs.struct.field("value")
    if not (weights.dtype.is_numeric() or weights.dtype.is_decimal()) or keys.dtype.is_nested():
        return series
    if keys.dtype != pl.String:
        distinct = keys.drop_nulls().unique()
        texts = [canonical_text(key, series.name) for key in distinct.to_list()]
        keys = keys.replace_strict(distinct, texts, default=None, return_dtype=pl.String)
    frame = pl.DataFrame({"row": rows, "item": keys, "weight": weights.cast(pl.Float64)})
    frame = frame.filter(pl.col("item").is_not_null() & pl.col("weight").is_not_null())
    if frame.select(pl.struct("row", "item").is_duplicated().any()).item():
        last = frame.unique(["row", "item"], keep="last").select("row", "item", last="weight")
        frame = frame.unique(["row", "item"], keep="first", maintain_order=True)
        frame = frame.join(last, on=["row", "item"], maintain_order="left")
        frame = frame.with_columns(weight="last")
    return _lists_of(series, frame["row"], frame.select(pl.struct("item", "weight")).to_series())


def _weights_of_structs(series: pl.Series) -> pl.Series:
    """Return structs of numbers as lists of (item, weight), without those that are null."""
    assert isinstance(series.dtype, pl.Struct)
    fields = [pl.struct(item=pl.lit(name), weight=pl.col(name).cast(pl.Float64)) for name in series.struct.fields]
    if not all(field.dtype.is_numeric() or field.dtype.is_decimal() for field in series.dtype.fields):
        return series
    present = pl.element().filter(pl.element().struct.field("weight").is_not_null())
    weighted = series.struct.unnest().select(pl.concat_list(fields).list.eval(present)).to_series()
    return pl.select(pl.when(series.is_not_null()).then(weighted)).to_series().alias(series.name)


def _lists_of(series: pl.Series, rows: pl.Series, items: pl.Series) -> pl.Series:
    """Return a list of the items of each row, null where the series is."""
    lists = pl.DataFrame({"row": rows, "items": items}).group_by("row", maintain_order=True).agg("items")
    frame = pl.DataFrame({"row": np.arange(len(series)), "null": series.is_null()})
    frame = frame.join(lists, on="row", how="left", maintain_order="left")
    empty = pl.lit([], dtype=pl.List(items.dtype))
    return frame.select(pl.when(~pl.col("null")).then(pl.col("items").fill_null(empty))).to_series().alias(series.name)
