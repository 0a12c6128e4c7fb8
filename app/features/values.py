"""What a value is: the one reading of cells that files, the store and requests share. docs/values.md is its table.

A value comes as CSV or as Redis hold it, as text; as JSON has it; or as Parquet has it, in a Python type of its own. It
is read as the field that it is for: as a category, which is text in one spelling, or as a number. What is written in
several ways by the programs that write tables (`7`, `7.0`, `7.00`, `7.0E0`, a decimal, a float) is one category; any
other text is itself, to the letter: `007`, `1.10` and ` x` are no numbers but codes, versions and words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal

from app.errors import EncodingError

FLOAT32_MAX = 3.4028234663852886e38
FLOAT_EXACT = 2**53
"""Above it a double does not hold every whole number: an id that went through one has lost its last digits."""
MAX_INTEGER = 2**128
INT64_MAX, UINT64_MAX = 2**63 - 1, 2**64 - 1

MISSING_NUMBERS = frozenset(
    {
        "", "null", "\\n", "na", "n/a", "nan", "-nan", "+nan", "none", "nil", "<na>", "#n/a", "#na", "#n/a n/a", "nat",
        "-1.#ind", "1.#ind", "1.#qnan", "-1.#qnan",
    }
)  # fmt: skip
"""What databases, pandas, R and spreadsheets write where a number is missing, in lower case and without spaces."""
WRITTEN_NUMBER = re.compile(r"[-+(='\"$€£¥ ]*[0-9][0-9.,' \u00a0\u202f]*[-%$€£¥)\"\u00a0 ]*")
"""Matches numbers as people and spreadsheets write them: 1.234,5, 5 %, $5, (5), ="5"."""
MAX_WRITTEN_NUMBER = 100
"""Letters of such a number, at most: the pattern takes time with the square of the spaces in a text."""
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
RESPELLED = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
"""Booleans as pandas, R and spreadsheets write them. Any other text that is respelled holds a point or a plus."""
WHOLE_DECIMAL = re.compile(r"(-?[1-9][0-9]*)\.0+|-?0\.0+")
"""Matches whole numbers as decimals and floats are written."""
SCIENTIFIC = re.compile(r"-?[0-9](?:\.[0-9]+[eE][+-]?|[eE]\+)[0-9]{1,3}")
"""Matches floats as Java, C and Python write large ones. `12e45678` and `1e5` are codes."""
LOST_DIGITS = (
    "an id or category of more than 2^53 that was written as a floating-point number has lost its last digits: "
    "write it anew, as a whole number or as text"
)

Reading = Literal[1, 2]
"""Which spellings are one category; 1 is that of versions that were trained before there were more."""


def canonical_text(value: object, field: str) -> str:
    """Spell a category; what is the same has one spelling, however it was written.

    Raises:
        EncodingError: the value is no text, number, boolean, time or bytes of text; or not finite; or has lost digits.
    """
    if isinstance(value, str):
        return _spell_text(value, field)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if not -MAX_INTEGER < value < MAX_INTEGER:
            raise EncodingError(field, "an integer category must fit in 128 bits")
        return str(value)
    if isinstance(value, float):
        return _spell_float(value, field)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise EncodingError(field, "a category cannot be NaN or infinite")
        # A decimal has all its digits, so that one beyond 2^53 is a whole number like any other.
        whole = value == value.to_integral_value()
        return canonical_text(int(value), field) if whole else _spell_float(float(value), field)
    if isinstance(value, bytes):
        return _spell_text(text_of(value, field), field)
    if isinstance(value, date | time):
        return _iso_time(value)
    if isinstance(value, timedelta):
        return iso_duration(value // timedelta(microseconds=1), 10**6)
    raise EncodingError(field, f"expected a string, number or boolean, not {type_name(value)}")


def _spell_text(text: str, field: str) -> str:
    if text in RESPELLED:
        return RESPELLED[text]
    if "." not in text and "+" not in text:  # nearly every text
        return text
    match = WHOLE_DECIMAL.fullmatch(text)
    if match is not None:
        return match[1] or "0"
    return text if SCIENTIFIC.fullmatch(text) is None else _spell_float(float(text), field)


def _spell_float(number: float, field: str) -> str:
    if not math.isfinite(number):
        raise EncodingError(field, "a category cannot be NaN or infinite")
    if not number.is_integer():
        return repr(number)
    if abs(number) > FLOAT_EXACT:
        raise EncodingError(field, LOST_DIGITS)
    return str(int(number))


def scalar_text(value: object, field: str) -> str:
    """Write a scalar as text that is read as the value is, as a category and as a number.

    Raises EncodingError if no field could read it.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return text_of(value, field)
    if isinstance(value, float) and value.is_integer() and abs(value) > FLOAT_EXACT:
        # A number like any other; the exponent says that it is no id.
        text = repr(value)
        return text if "e" in text else f"{value:.16e}"
    return canonical_text(value, field)


FIRST_WHOLE_FLOAT = re.compile(r"(-?[1-9][0-9]{0,17})\.0|-?0\.0")
"""Matches the one spelling of a whole number that the first reading knew beside its digits."""


def _first_reading(value: object, field: str) -> str:
    """Spell a category as versions did that know of no other spelling of 7 than `7.0`."""
    if isinstance(value, str):
        match = FIRST_WHOLE_FLOAT.fullmatch(value)
        return value if match is None else match[1] or "0"
    if isinstance(value, float) and value.is_integer() and FLOAT_EXACT < abs(value) <= INT64_MAX:
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value) and abs(value) > INT64_MAX:
        return repr(value)
    return canonical_text(value, field)


Spell = Callable[[object, str], str]
READINGS: Mapping[Reading, Spell] = {1: _first_reading, 2: canonical_text}
"""A published version keeps the reading that it was trained with."""


def number_of(value: object, field: str) -> float:
    """Read a number, NaN where it is missing. A boolean counts as 0 or 1, in words too.

    Raises:
        EncodingError: the value is no number, or beyond 32-bit floats.
    """
    if isinstance(value, str):
        try:
            number = math.nan if "_" in value else float(value)  # Python reads 1_000, which no table writes
        except ValueError:
            number = math.nan
        if number != number:
            number = _number_in_words(value, field)
    elif isinstance(value, int | float):
        number = value
    elif isinstance(value, Decimal):
        number = float(value)
    elif isinstance(value, bytes):
        return number_of(text_of(value, field), field)
    else:
        raise EncodingError(field, f"expected a number, not {type_name(value)}")
    if number != number:
        return math.nan
    if not abs(number) <= FLOAT32_MAX:
        raise EncodingError(field, "the number does not fit a 32-bit float")
    return number + 0.0  # minus zero is zero: a decimal has no sign for it


def _number_in_words(text: str, field: str) -> float:
    word = text.strip()
    if word.lower() in MISSING_NUMBERS:
        return math.nan
    if word in BOOLEANS:
        return float(BOOLEANS[word])
    if len(word) <= MAX_WRITTEN_NUMBER and WRITTEN_NUMBER.fullmatch(word):
        raise EncodingError(
            field, "expected a number; write it as 1234.5, with a point and without separators or signs"
        )
    raise EncodingError(field, "expected a number; text that stands for a missing one is declared by `missing`")


def text_of(value: bytes, field: str) -> str:
    """Return text that is stored as bytes, as Impala writes it. Raises EncodingError if it is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise EncodingError(
            field, "bytes that are not UTF-8 text are no feature; write them as text, a UUID as its 36 letters"
        ) from None


def _iso_time(value: date | time) -> str:
    """Return a date or time as ISO 8601 has it, with as many digits of a second as it needs."""
    text = value.isoformat()
    return re.sub(r"(\.[0-9]*?)0+(?=$|[+-])", r"\1", text) if "." in text else text


def iso_duration(number: int, units: int) -> str:
    """Return a duration as ISO 8601 has it, in seconds: `PT300S`, `-PT0.5S`.

    Args:
        number: the duration in units of which a second has so many.
    """
    seconds, rest = divmod(abs(number), units)
    fraction = f".{rest:0{len(str(units)) - 1}d}".rstrip("0") if rest else ""
    return f"{'-' if number < 0 else ''}PT{seconds}{fraction}S"


def type_name(value: object) -> str:
    """Name a value's type for an error message."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "an array"
    if isinstance(value, datetime | time):
        return "a time"
    if isinstance(value, date):
        return "a date"
    if isinstance(value, timedelta):
        return "a duration"
    return "bytes" if isinstance(value, bytes) else type(value).__name__
