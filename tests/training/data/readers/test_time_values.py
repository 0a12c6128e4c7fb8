"""Times are read as Python's datetime reads them, whatever form they have; what is none is null."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.training.data.readers.time_values import seconds_of

MOMENTS = st.datetimes(datetime.fromisoformat("1900-01-01"), datetime.fromisoformat("2199-12-31"))
ZONES = st.one_of(
    st.none(), st.just(UTC), st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
)


@given(st.lists(st.tuples(MOMENTS, ZONES, st.sampled_from("T ")), min_size=1, max_size=20))
def test_iso_text_is_seconds_since_1970_with_any_zone(moments: list[tuple[datetime, timezone | None, str]]) -> None:
    texts = [moment.replace(tzinfo=zone).isoformat(between) for moment, zone, between in moments]
    expected = [moment.replace(tzinfo=zone or UTC).timestamp() for moment, zone, _ in moments]
    assert seconds_of(pl.Series("at", texts)).to_list() == pytest.approx(expected, abs=1e-5)


@given(st.lists(st.one_of(st.none(), MOMENTS), min_size=1))
def test_dates_of_parquet_are_seconds_too_in_any_unit(moments: list[datetime | None]) -> None:
    whole = [moment and moment.replace(microsecond=0, tzinfo=UTC) for moment in moments]
    expected = [moment and moment.timestamp() for moment in whole]
    column = pl.Series("at", whole, dtype=pl.Datetime("us", "UTC"))
    for unit in ("ms", "us", "ns"):
        assert seconds_of(column.dt.cast_time_unit(unit)).to_list() == expected
        assert seconds_of(column.dt.replace_time_zone(None).dt.cast_time_unit(unit)).to_list() == expected


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1))
def test_numbers_stay_what_they_are(numbers: list[float | None]) -> None:
    assert seconds_of(pl.Series("at", numbers, dtype=pl.Float64)).to_list() == numbers
    text = pl.Series("at", [None if number is None else repr(number) for number in numbers], dtype=pl.String)
    assert seconds_of(text).to_list() == numbers


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400),
        ("1970/01/02 00:00", 86_400),
        ("1970-01-01T00:00:01Z", 1),
        ("1970-01-01 00:00:01.5 UTC", 1.5),
        ("1970-01-01T00:00:01,25", 1.25),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T01:00:00+0100", 0),
        ("1969-12-31T19:00:00-05", 0),
        (" 12.5 ", 12.5),
        ("2023-02-29", None),
        ("1970-13-01", None),
        ("1970-01-01T24:30:00", None),
        ("1970-01-01T10:61", None),
        ("03.05.2024", None),
        ("soon", None),
        ("", None),
    ],
)
def test_forms_of_a_time(text: str, seconds: float | None) -> None:
    assert seconds_of(pl.Series("at", [text])).to_list() == [seconds]


def test_other_kinds_of_column_have_no_times() -> None:
    assert seconds_of(pl.Series("at", [True, None])).to_list() == [None, None]
    assert seconds_of(pl.Series("at", [["a"], None])).to_list() == [None, None]
    assert seconds_of(pl.Series("at", [date(1970, 1, 2), None])).to_list() == [86_400, None]
