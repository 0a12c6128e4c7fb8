"""One spelling of what is the same, however it was written; anything else is itself, or refused."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import EncodingError
from app.features.values import READINGS, canonical_text, number_of, scalar_text

SEVEN: list[object] = [
    7,
    7.0,
    "7",
    "7.0",
    "7.00",
    "7.000000",
    "7.0E0",
    "7.0e+00",
    "7e+00",
    Decimal(7),
    Decimal("7.00"),
    b"7",
]
ONE_CATEGORY: dict[str, list[object]] = {
    "7": SEVEN,
    "0": [0, -0.0, "0", "0.0", "-0.0", "0.00", "0.0E0", Decimal("0.00"), Decimal("-0.0")],
    "-7": [-7, "-7", "-7.0", "-7.00", -7.0, Decimal("-7.0")],
    "12345007": [12345007, 12345007.0, "1.2345007E7", "1.2345007e+07", "12345007.00", "12345007.0"],
    "10000000": ["1.0E7", "1e+07", "1E+07", 1e7],
    "18446744073709551615": [2**64 - 1, "18446744073709551615", Decimal(2**64 - 1), "18446744073709551615.00"],
    str(10**37): [10**37, str(10**37), Decimal(10**37)],
    "true": [True, "true", "True", "TRUE", b"True"],
    "false": [False, "false", "False", "FALSE"],
    "9.9": [9.9, "9.9", Decimal("9.90"), "9.9E0"],
    "1e-05": [1e-05, "1e-05", "1.0E-5"],
    "1990-05-01": [dt.date(1990, 5, 1), "1990-05-01"],
    "1990-05-01T10:00:00.5+00:00": [dt.datetime(1990, 5, 1, 10, 0, 0, 500_000, dt.UTC)],
    "10:11:12": [dt.time(10, 11, 12), "10:11:12"],
    "PT300S": [dt.timedelta(minutes=5)],
    "-PT0.5S": [dt.timedelta(seconds=-0.5)],
}
ITSELF = [
    "007", "+5", "1.10", "9.90", "4.10", "1,234", "1_000", "0x10", " x", "x ", "NA", "null", "t", "yes", "1e5",
    "12e45678", "68fd1e64", "1E5", "1.", ".5", "01.0", "1.0.0", "1.2.3e4", "v1.0", "-0", "١", "nan", "1.0E",
    "1e-5", "12.5E3",
]  # fmt: skip
NO_CATEGORY: list[object] = [
    math.nan, math.inf, 2**128, 2.0**54, "1.8446744073709552E19", "1.2345678901234567e+18", b"\xff", [], {},
    Decimal("NaN"),
]  # fmt: skip
NUMBERS: dict[float, list[object]] = {
    5.0: [5, 5.0, "5", "+5", " 5 ", "5.", "5e0", "5.0E+0", Decimal("5.00"), b"5", "٥"],
    1.0: [True, "true", "True", "TRUE"],
    0.0: [False, "false", "False", "-0.0"],
    1e18: [1e18, "1e18", "1.0E18", 10**18],
}
MISSING = ["", " ", "NULL", "null", "\\N", "NA", "N/A", "n/a", "nan", "NaN", "-nan", "None", "<NA>", "#N/A", "NaT"]
NO_NUMBER: list[object] = [
    "1,234", "1.234,5", "1 234", "1_000", "0x10", "cheap", "inf", "-inf", "1e400", 1e39, math.inf, [1], {}, "yes",
    "1990-05-01", dt.date(1990, 5, 1), dt.timedelta(1), b"\xff", "?", "-", "$5", "5%",
]  # fmt: skip


@pytest.mark.parametrize("text", ONE_CATEGORY)
def test_what_is_the_same_is_one_category(text: str) -> None:
    assert {canonical_text(value, "f") for value in ONE_CATEGORY[text]} == {text}
    for value in ONE_CATEGORY[text]:
        assert canonical_text(scalar_text(value, "f"), "f") == text, "as the store holds it"


@pytest.mark.parametrize("text", ITSELF)
def test_any_other_text_is_itself(text: str) -> None:
    assert canonical_text(text, "f") == canonical_text(text.encode(), "f") == text


@pytest.mark.parametrize("value", NO_CATEGORY, ids=repr)
def test_what_no_category_can_be_is_refused(value: object) -> None:
    with pytest.raises(EncodingError) as refused:
        canonical_text(value, "f")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers(number: float) -> None:
    for value in NUMBERS[number]:
        assert number_of(value, "f") == number, value
        assert number_of(scalar_text(value, "f"), "f") == number, value


@pytest.mark.parametrize("text", MISSING)
def test_words_for_a_missing_number(text: str) -> None:
    assert math.isnan(number_of(text, "f"))


@pytest.mark.parametrize("value", NO_NUMBER, ids=repr)
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(EncodingError):
        number_of(value, "f")


def test_separators_are_named() -> None:
    with pytest.raises(EncodingError, match="with a point and without separators"):
        number_of("1,234", "f")


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**127), 2**127) | st.booleans() | st.text())
def test_the_text_of_a_scalar_is_read_as_the_scalar(value: object) -> None:
    def read(function: object, given: object) -> object:
        try:
            return function(given, "f")  # type: ignore[operator]
        except EncodingError:
            return "refused"

    text = scalar_text(value, "f")
    assert read(canonical_text, text) == read(canonical_text, value)
    if not isinstance(value, str):
        assert read(number_of, text) == pytest.approx(read(number_of, value), nan_ok=True)


def test_a_spelling_is_spelled_as_itself() -> None:
    for text in ONE_CATEGORY:
        assert canonical_text(text, "f") == text


def test_versions_of_before_keep_their_reading() -> None:
    first = READINGS[1]
    unchanged: list[object] = ["True", "7.00", "1.2345007E7", "x", "7", 7, True, 7.5]
    assert [first(value, "f") for value in unchanged] == ["True", "7.00", "1.2345007E7", "x", "7", "7", "true", "7.5"]
    assert [first(value, "f") for value in ("7.0", "-0.0", 7.0, 2.0**60, 1e19)] == ["7", "0", "7", str(2**60), "1e+19"]
    with pytest.raises(EncodingError):
        first(math.nan, "f")


def test_a_long_text_of_spaces_is_refused_at_once() -> None:
    """A pattern for numbers as people write them would take hours with it."""
    with pytest.raises(EncodingError, match="number"):
        number_of("1" + " " * 500_000 + "x", "f")
