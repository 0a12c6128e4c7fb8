"""Read a column of times as seconds: numbers as they are, ISO 8601 text and dates as seconds since 1970."""

from __future__ import annotations

import polars as pl

ISO_TIME = (
    r"^\s*(?P<date>\d{4}[-/]\d{2}[-/]\d{2})"
    r"(?:[Tt ]+(?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2}(?:[.,]\d+)?))?"
    r"\s*(?P<zone>[Zz]|UTC|[+-]\d{2}:?(?:\d{2})?)?)?\s*$"
)
"""Matches ISO 8601 with the year first, `T` or a space before the time of day, and a zone or none."""
DAY_S, HOUR_S, MINUTE_S = 86_400, 3_600, 60


def seconds_of(column: pl.Series) -> pl.Series:
    """Return a column of times as Float64: numbers as they are, dates and ISO text as seconds since 1970.

    A time without a zone is taken as UTC. What is no time is null.
    """
    if column.dtype == pl.String:
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
        # A file of numbers, the usual case, is not matched against the pattern.
        return numbers if numbers.null_count() == column.null_count() else numbers.fill_null(_iso_seconds(column))
    if isinstance(column.dtype, pl.Date):
        return column.cast(pl.Int32).cast(pl.Float64) * DAY_S
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.epoch("us").cast(pl.Float64) / 1e6
    if column.dtype.is_numeric():
        return column.cast(pl.Float64)
    return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)


def _iso_seconds(text: pl.Series) -> pl.Series:
    """Return ISO 8601 text as seconds since 1970, null where it is none: 29 February of 2023 and 24:30 are none."""
    parts = text.str.extract_groups(ISO_TIME).struct.unnest()
    hour, minute = (parts[name].cast(pl.Float64).fill_null(0.0) for name in ("hour", "minute"))
    second = parts["second"].str.replace(",", ".", literal=True).cast(pl.Float64).fill_null(0.0)
    day = parts["date"].str.replace_all("/", "-", literal=True).str.to_date("%Y-%m-%d", strict=False)
    zone = parts["zone"].str.replace(":", "", literal=True)
    offset = zone.str.slice(1, 2).cast(pl.Float64, strict=False).fill_null(0.0) * HOUR_S
    offset += zone.str.slice(3, 2).cast(pl.Float64, strict=False).fill_null(0.0) * MINUTE_S
    sign = zone.str.starts_with("-").cast(pl.Float64).fill_null(0.0) * -2 + 1
    of_day = hour * HOUR_S + minute * MINUTE_S + second
    seconds = day.cast(pl.Int32).cast(pl.Float64) * DAY_S + of_day - sign * offset
    # A second of 60 is a leap second.
    possible = (hour < 24) & (minute < 60) & (second < 61)
    return pl.select(pl.when(possible).then(seconds)).to_series().alias(text.name)
