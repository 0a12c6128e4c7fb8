"""Bring columns with values of several types into a form that encodes alike."""

from __future__ import annotations

from typing import Any

import polars as pl

from app.errors import EncodingError
from app.features.loading.stored_text import stored_text
from app.features.tables.plain_series import WEIGHTED
from app.features.values import FLOAT_EXACT


def json_series(name: str, values: list[Any]) -> pl.Series:
    """Return a column of JSON values that encodes as they would one by one, whatever types there are among them."""
    values = [None if value != value else value for value in values]  # NaN, which pandas writes to JSON
    types = {value.__class__ for value in values} - {type(None)}
    if types <= {str}:
        return pl.Series(name, values, dtype=pl.String)
    if types == {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    present = [value for value in values if value is not None]
    if types == {int} and all(abs(value) < 2**63 for value in present):
        return pl.Series(name, values, dtype=pl.Int64)
    if types <= {int, float} and all(value.__class__ is float or abs(value) <= FLOAT_EXACT for value in present):
        return pl.Series(name, [None if value is None else float(value) for value in values], dtype=pl.Float64)
    if types == {list} and all(item is None or item.__class__ is str for value in present for item in value):
        return pl.Series(name, values, dtype=pl.List(pl.String))
    return pl.Series(name, [_json_text(name, value) for value in values], dtype=pl.String)


def stack_frames(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Put chunks of one table under each other, whatever types a column has in them."""
    names = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    columns = []
    for name in names:
        pieces = [
            frame[name] if name in frame.columns else pl.Series(name, [None] * len(frame), dtype=pl.Null)
            for frame in frames
        ]
        types = {piece.dtype for piece in pieces if piece.null_count() < len(piece)}
        if len(types) <= 1:
            dtype = next(iter(types), pl.String())
            empty = pl.Series(name, [], dtype=dtype)
            columns.append(
                pl.concat(
                    [piece if piece.dtype == dtype else empty.extend_constant(None, len(piece)) for piece in pieces]
                )
            )
        else:
            columns.append(json_series(name, [value for piece in pieces for value in _values(piece)]))
    return pl.DataFrame(columns)


def as_text_has_it(series: pl.Series) -> pl.Series:
    """Return weighted lists as JSON objects, as text files have them, and any other column as it is."""
    if series.dtype != WEIGHTED:
        return series
    return pl.Series(series.name, [_json_text(series.name, value) for value in _values(series)], dtype=pl.String)


def _values(piece: pl.Series) -> list[Any]:
    if piece.dtype != WEIGHTED:
        return piece.to_list()
    return [None if row is None else {pair["item"]: pair["weight"] for pair in row} for row in piece.to_list()]


def _json_text(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return stored_text(value, name)
    except EncodingError:
        return str(value)  # no field reads it, which the encoder says
