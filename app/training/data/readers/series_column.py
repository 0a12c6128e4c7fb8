"""Bring polars columns into the forms that the encoder reads at once: distinct values, numbers, lists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import EncodingError
from app.features.columns import Distinct, Lists, Numbers, PythonColumn
from app.features.tables.plain_series import WEIGHTED

MIN_REPEATS = 4
"""Lists that occur this often on average are cheaper encoded once each than laid end to end."""


class SeriesColumn:
    """Holds a column of N values and keeps its distinct values, since two fields may read them."""

    def __init__(self, series: pl.Series) -> None:
        self._series = series.fill_nan(None) if series.dtype.is_float() else series
        self._distinct: Distinct | None = None

    def distinct(self) -> Distinct:
        """Return the distinct values and their codes [N]."""
        if self._distinct is None:
            self._distinct = (
                _distinct_mappings(self._series) if is_weighted(self._series.dtype) else distinct(self._series)
            )
        return self._distinct

    def numbers(self, read: Callable[[object], float]) -> Numbers | None:
        """Return the values as numbers [N], NaN where missing; None unless all are numbers."""
        series = self._series
        if series.dtype == pl.String:
            series = series.replace("", None)
            numbers = series.cast(pl.Float64, strict=False)
            # Some text is a number to Python and not to polars, or says that there is none.
            odd = series.is_not_null() & numbers.is_null()
            if odd.any():
                texts = series.filter(odd)
                distinct_texts = texts.unique().to_list()
                try:
                    values = [read(text) for text in distinct_texts]
                except EncodingError:
                    return None
                found = texts.replace_strict(distinct_texts, values, return_dtype=pl.Float64)
                numbers = numbers.scatter(odd.arg_true(), found)
        elif series.dtype.is_numeric() or series.dtype == pl.Boolean:
            numbers = series.cast(pl.Float64)
        else:
            return None
        return numbers.fill_null(float("nan")).to_numpy()

    def lists(self, separator: str | None) -> Lists | None:
        """Return the values as lists laid end to end; None where they are not, or are encoded once each faster."""
        series = self._series
        if series.dtype == pl.String:
            if series.str.contains(r"^[\[{]").any() or series.n_unique() * MIN_REPEATS <= len(series):
                return None
            text = series.replace("", None)
            series = text.str.split(separator) if separator else text.reshape((-1, 1)).arr.to_list()
        if not isinstance(series.dtype, pl.List):
            return None
        items = series.explode(empty_as_null=False, keep_nulls=False)
        weights: Numbers | None = None
        if is_weighted(series.dtype):
            items, weights = items.struct.field("item"), items.struct.field("weight").to_numpy()
        if not (items.dtype == pl.String or items.dtype.is_integer() or items.dtype == pl.Boolean):
            return None
        return Lists(distinct(items), series.list.len().fill_null(0).cast(pl.Int64).to_numpy(), weights)


def distinct(series: pl.Series) -> Distinct:
    """Return the distinct values of a series, null among them, and the codes of its rows."""
    if series.dtype == pl.String:
        values = series.unique().drop_nulls()
        codes = series.cast(pl.Enum(values)).to_physical().cast(pl.Int64)
        return Distinct([*values.to_list(), None], codes.fill_null(len(values)).to_numpy())
    if series.dtype.is_numeric() or series.dtype == pl.Boolean:
        present = series.drop_nulls().to_numpy()
        # By bits, so that 0.0 and -0.0 stay two values, as they are to Python's repr.
        bits = present.view(f"u{present.itemsize}") if present.dtype.kind == "f" else present
        _, first, present_codes = np.unique(bits, return_index=True, return_inverse=True)
        codes_N: npt.NDArray[np.int64] = np.full(len(series), len(first), np.int64)
        codes_N[series.is_not_null().to_numpy()] = present_codes
        return Distinct([*present[first].tolist(), None], codes_N)
    return PythonColumn(series.to_list()).distinct()


def is_weighted(dtype: pl.DataType) -> bool:
    """Tell whether a column holds lists of (item, weight), each of which stands for a JSON object."""
    return dtype == WEIGHTED


def _distinct_mappings(series: pl.Series) -> Distinct:
    values = [None if row is None else {pair["item"]: pair["weight"] for pair in row} for row in series.to_list()]
    return PythonColumn(values).distinct()


def series_columns(frame: pl.DataFrame) -> dict[str, SeriesColumn]:
    """Return all columns of a table by their names."""
    return {name: SeriesColumn(frame[name]) for name in frame.columns}
