"""Read a column of times as seconds since 1970, by the rules of `features/times`.

Numbers that are dates, such as 20240503, are told from counters by the column and not by the value: see `TimeForm`.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from app.features.times import DAY_FIRST, FIRST_S, ISO_TIME, LAST_S, PLACEHOLDER_S, UNITS_A_SECOND

DAY_S, HOUR_S, MINUTE_S = 86_400, 3_600, 60
COMPACT_FORMS = (("%Y%m%d", 8), ("%y%m%d%H", 8), ("%Y%m%d%H", 10), ("%Y%m%d%H%M", 12), ("%Y%m%d%H%M%S", 14))
"""Forms of dates that are written as a number, and their digits."""
COMPACT_YEARS = (1985, 2099)
SERIAL_DAYS = (36_526, 55_153)
"""Numbers with fractions, all from 2000 to 2050 in days since 30 December 1899, are times as spreadsheets hold them."""
SERIAL_1970 = 25_569
EPOCH_S = 5e8
"""Numbers whose median is above this, the year 1985, are seconds since 1970 and no counter."""
TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum, pl.Binary)


class TimeForm(NamedTuple):
    """Says what the numbers of a column of times mean, which no single one of them tells."""

    compact: str = ""
    """The form of dates that are written as numbers, as in `strptime`; empty where they are none."""
    is_dated: bool = False
    """Tells that the times are dates and not a counter, so that one outside of 1970 to 2100 is a placeholder."""
    is_serial: bool = False
    """Tells that they are the days of a spreadsheet, with the time of day as their fraction."""


COUNTER = TimeForm()


def time_form(sample: pl.Series) -> TimeForm:
    """Tell what a column of times means by some of its values."""
    if sample.dtype.is_temporal():
        return TimeForm(is_dated=True)
    numbers, present = _numbers(sample).drop_nulls(), len(sample.drop_nulls())
    if not present:
        return COUNTER
    if len(numbers) * 2 <= present:
        return TimeForm(is_dated=True)
    if numbers.is_between(*SERIAL_DAYS).all() and (numbers != numbers.floor()).any():
        return TimeForm(is_dated=True, is_serial=True)
    compact = compact_form(numbers)
    median = _from_units(numbers).median()
    return TimeForm(compact, bool(compact) or (isinstance(median, float) and median >= EPOCH_S))


def compact_form(numbers: pl.Series) -> str:
    """Return the form of the dates that some numbers are, such as 20240503, 2024050310 or 24050310; empty if none."""
    if not len(numbers) or not ((numbers == numbers.floor()) & numbers.is_between(1e6, 1e14)).all():
        return ""
    text = numbers.unique().cast(pl.Int64).cast(pl.String)
    for form, digits in COMPACT_FORMS:
        if (text.str.len_chars() == digits).all():
            times = _parse_compact(text, form)
            if times.null_count() == 0 and times.dt.year().is_between(*COMPACT_YEARS).all():
                return form
    return ""


def seconds_of(column: pl.Series, form: TimeForm = COUNTER) -> pl.Series:
    """Return a column of times as Float64 seconds since 1970: numbers by their unit, dates and ISO text.

    A time without a zone is taken as UTC. What is no time is null, and so is a placeholder in a column of dates.
    """
    seconds = _seconds(column, form)
    return _where(seconds.is_between(FIRST_S, LAST_S), seconds) if form.is_dated else seconds


def has_day_first(column: pl.Series) -> pl.Series:
    """Return whether each value is a date such as 05/11/2023, of which nobody knows what is the month."""
    if column.dtype not in TEXT_TYPES:
        return pl.repeat(False, len(column), dtype=pl.Boolean, eager=True)
    return _texts(column).str.contains(DAY_FIRST).fill_null(False)


def _seconds(column: pl.Series, form: TimeForm) -> pl.Series:
    if isinstance(column.dtype, pl.Date):
        return column.cast(pl.Int32).cast(pl.Float64) * DAY_S
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.epoch("us").cast(pl.Float64) / 1e6
    numbers = _numbers(column)
    if form.is_serial:
        seconds = ((numbers - SERIAL_1970) * DAY_S).round(3)  # of a double that holds days, no more is known
    else:
        seconds = _compact_seconds(numbers, form.compact) if form.compact else _from_units(numbers)
    # A file of numbers, the usual case, is not matched against the pattern.
    if column.dtype in TEXT_TYPES and numbers.null_count() > column.null_count():
        return seconds.fill_null(_iso_seconds(_texts(column)))
    return seconds


def _numbers(column: pl.Series) -> pl.Series:
    """Return the finite numbers of a column as Float64, null where there is none."""
    if column.dtype in TEXT_TYPES:
        numbers = _texts(column).str.strip_chars().cast(pl.Float64, strict=False)
    elif column.dtype.is_numeric():
        numbers = column.cast(pl.Float64)
    else:
        return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    return _where(numbers.is_finite(), numbers)


def _from_units(numbers: pl.Series) -> pl.Series:
    """Return numbers of seconds, milli-, micro- or nanoseconds as seconds, as `seconds_of_number` does."""
    size = numbers.abs()
    if (size < min(UNITS_A_SECOND)).all():  # nulls aside
        return numbers
    seconds = numbers
    for above, units in sorted(UNITS_A_SECOND.items()):
        seconds = (numbers / units).zip_with((size >= above).fill_null(False), seconds)
    first, end = PLACEHOLDER_S
    for units in (1.0, 1e3, 1e6):
        seconds = _where((numbers < first * units) | (numbers >= end * units), seconds)
    return seconds


def _compact_seconds(numbers: pl.Series, form: str) -> pl.Series:
    digits = next(digits for one, digits in COMPACT_FORMS if one == form)
    text = _where(numbers == numbers.floor(), numbers).cast(pl.Int64, strict=False).cast(pl.String)
    return _parse_compact(_where(text.str.len_chars() == digits, text), form).dt.epoch("us").cast(pl.Float64) / 1e6


def _parse_compact(text: pl.Series, form: str) -> pl.Series:
    # polars wants minutes with an hour.
    hourly = form.endswith("%H")
    return (text + "00" if hourly else text).str.to_datetime(form + "%M" * hourly, strict=False, time_unit="us")


def _texts(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Binary:
        values = (None if value is None else value.decode(errors="replace") for value in column)
        return pl.Series(column.name, list(values), dtype=pl.String)
    return column.cast(pl.String)


def _where(flags: pl.Series, values: pl.Series) -> pl.Series:
    """Return the values, null where the flag is not set."""
    return values.zip_with(flags.fill_null(False), pl.Series(values.name, [None], dtype=values.dtype))


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
