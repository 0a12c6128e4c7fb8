"""Times are read as Python's datetime reads them, whatever form they have; what is none is null."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.features.times import seconds_of_value
from app.training.data.readers.time_values import COMPACT_FORMS, TimeForm, has_day_first, seconds_of, time_form

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


NUMBERS = st.one_of(
    st.floats(), st.integers(-(2**63), 2**63 - 1).map(float), st.sampled_from([2.5340229e11, 1e11, -1e14])
)


@given(st.lists(st.one_of(st.none(), NUMBERS), min_size=1))
def test_numbers_are_read_by_their_size_as_loading_reads_them(numbers: list[float | None]) -> None:
    expected = [None if number is None else seconds_of_value(number) for number in numbers]
    assert seconds_of(pl.Series("at", numbers, dtype=pl.Float64)).to_list() == pytest.approx(expected)
    text = pl.Series("at", [None if number is None else repr(number) for number in numbers], dtype=pl.String)
    assert seconds_of(text).to_list() == pytest.approx(expected)


@given(MOMENTS.filter(lambda moment: moment.year > 1980))
def test_units_are_one_moment(moment: datetime) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    seconds = int(whole.timestamp())
    for units in (1, 10**3, 10**6, 10**9):
        for column in (pl.Series([seconds * units]), pl.Series([str(seconds * units)])):
            assert seconds_of(column).to_list() == pytest.approx([seconds], abs=1e-3)


@given(st.lists(st.text(st.sampled_from("0123456789-/:T Z+.,"), max_size=25), min_size=1, max_size=20))
def test_text_is_read_as_loading_reads_it(texts: list[str]) -> None:
    expected = [seconds_of_value(text) for text in texts]
    assert seconds_of(pl.Series("at", texts, dtype=pl.String)).to_list() == pytest.approx(expected, nan_ok=True)


DATES = st.datetimes(datetime.fromisoformat("1985-01-01"), datetime.fromisoformat("2099-12-31"))


@given(st.lists(DATES, min_size=30, max_size=40), st.sampled_from(COMPACT_FORMS))
def test_dates_that_are_written_as_numbers(moments: list[datetime], form: tuple[str, int]) -> None:
    moments = [*moments, datetime(2024, 5, 31, 23, 59, 59), datetime(2029, 11, 13, 3, 1, 2)]  # noqa: DTZ001
    if form[0].startswith("%y"):
        moments = [
            moment.replace(year=2000 + moment.year % 68) for moment in moments if (moment.month, moment.day) != (2, 29)
        ]
    texts = [moment.strftime(form[0]) for moment in moments]
    expected = [datetime.strptime(text, form[0]).replace(tzinfo=UTC).timestamp() for text in texts]
    for column in (pl.Series(texts), pl.Series([int(text) for text in texts])):
        found = time_form(column)
        if len(str(int(texts[0]))) == len(texts[0]) == form[1] and found.compact == form[0]:
            assert found.is_dated
            assert seconds_of(column, found).to_list() == expected
        else:
            assert form[0].startswith("%y")  # 050102 begins with a zero, and 20101112 may be a day of 2010


@pytest.mark.parametrize(
    ("values", "compact", "is_dated"),
    [
        ([1, 2, 300], "", False),
        ([20240503, 20240504], "%Y%m%d", True),
        ([20240503, 20241504], "", False),
        ([24050310, 24123123], "%y%m%d%H", True),
        ([1790000000, 1790000900], "", True),
        ([1790000000000, 1790000900000], "", True),
        (["1790000000", None, "1790000900.5"], "", True),
        (["2024-05-03", "2024-05-04"], "", True),
        ([date(2024, 5, 3)], "", True),
        ([0.5, 1.5], "", False),
        ([None], "", False),
    ],
)
def test_what_a_column_of_times_means(values: list[object], compact: str, is_dated: bool) -> None:
    assert time_form(pl.Series("at", values)) == (compact, is_dated, False)


def test_days_of_spreadsheets_keep_their_time_of_day() -> None:
    days = pl.Series("at", [46286.59259259259, 46286.60300925926, 46287.0])
    for column in (days, days.cast(pl.String)):
        form = time_form(column)
        assert form.is_serial
        assert seconds_of(column, form).to_list() == pytest.approx([1790000000, 1790000900, 1790035200], abs=1e-3)
    assert not time_form(pl.Series([46286, 46287])).is_serial  # may be any counter


def test_placeholders_among_dates_are_no_times() -> None:
    dated = TimeForm(is_dated=True)
    column = pl.Series("at", ["1900-01-01", "9999-12-31", "2024-05-03", "0001-01-01", "253402214400", "0", "-1"])
    assert seconds_of(column, dated).is_not_null().to_list() == [False, False, True, False, False, False, False]
    numbers = pl.Series("at", [0, -1, 1714694400, 253402300799, 253402300799000])
    assert seconds_of(numbers, dated).to_list() == [None, None, 1714694400, None, None]


def test_texts_of_any_column_type() -> None:
    for dtype in (pl.Categorical, pl.Enum(["2024-05-03", "x"])):
        assert seconds_of(pl.Series("at", ["2024-05-03", "x", None], dtype=dtype)).to_list() == [1714694400, None, None]
    assert seconds_of(pl.Series("at", [b"2024-05-03", b"\xff", None])).to_list() == [1714694400, None, None]
    assert has_day_first(pl.Series(["05/11/2023", "5.11.23", "2023-11-05", None])).to_list() == [
        True,
        True,
        False,
        False,
    ]


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
        ("1970-01-01T02", 7200),
        ("1970-01-01T01:00:00+01:00[Europe/Paris]", 0),
        ("1970-01-01 00:00:02 GMT", 2),
        ("1970-01-01T01:00:00[Europe/Paris]", None),
        ("1970-01-02T18:00:00+18:00", 86_400),
        ("1970-01-02T01:00:00+25:00", None),
        ("1970-01-01T01:00:00+00:75", None),
        ("2023-W45-7", None),
        ("11/05/2023 02:13:20 PM", None),
        ("nan", None),
        ("inf", None),
        ("1_000", None),
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
