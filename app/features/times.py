"""Read a time in any usual form as seconds since 1970: the rules that training, loading and `schema infer` share.

A number is seconds, or milli-, micro- or nanoseconds by its size; text is a number or ISO 8601; dates and datetimes are
what they say. A time without a zone is UTC. Training reads columns by these rules (`training/data/readers`).
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

UNITS_A_SECOND = {1e17: 1e9, 1e14: 1e6, 1e11: 1e3}
"""A number above the key is nano-, micro- or milliseconds. 1e11 seconds are the year 5138, 1e11 milliseconds 1973."""
FIRST_S, LAST_S = 1.0, 4_102_444_800.0
"""Rows happened after 1970 began and before 2100: else it is a placeholder such as 0, 1900-01-01 or 9999-12-31."""
DATED_S = 1e8
"""A smaller number, before 1973, counts something else than seconds since 1970."""
PLACEHOLDER_S = (253_402_214_400.0, 253_402_300_800.0)
"""The last day of the year 9999, which a number of seconds, milli- or microseconds may stand for."""
ISO_TIME = (
    r"^\s*(?P<date>\d{4}[-/]\d{2}[-/]\d{2})"
    r"(?:[Tt ]+(?P<hour>\d{2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2}(?:[.,]\d+)?))?)?"
    r"(?:\s*(?P<zone>[Zz]|UTC|GMT|[+-](?:0\d|1[0-8]):?(?:[0-5]\d)?)(?:\[[A-Za-z0-9_+/-]+\])?)?)?\s*$"
)
"""Matches ISO 8601 with the year first, `T` or a space before the time of day, and a zone or none; Java's `[Zone/Name]`
may follow an offset. Alone it says no offset: of an hour in autumn there are two."""
DAY_FIRST = r"^\s*\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b"
"""Matches dates such as 05/11/2023, of which nobody knows whether they are of May or of November."""
HOW_TO_WRITE = "write it as 2026-11-05T10:11:12Z or as seconds since 1970"

_ISO_TIME = re.compile(ISO_TIME)
_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*")


def seconds_of_number(number: float) -> float | None:
    """Return a number of seconds, milli-, micro- or nanoseconds since 1970 as seconds; None for the end of 9999."""
    if any(PLACEHOLDER_S[0] * units <= number < PLACEHOLDER_S[1] * units for units in (1.0, 1e3, 1e6)):
        return None
    return number / next((units for above, units in UNITS_A_SECOND.items() if abs(number) >= above), 1.0)


def seconds_of_value(value: object) -> float | None:
    """Return a time as seconds since 1970; None where it is none."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return seconds_of_number(float(value)) if _NUMBER.fullmatch(value) else _iso_seconds(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float | Decimal):
        try:
            number = float(value)
        except (OverflowError, ValueError):  # an integer of hundreds of digits; a signalling NaN
            return None
        return seconds_of_number(number) if math.isfinite(number) else None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC).timestamp()
    return None


def _iso_seconds(text: str) -> float | None:
    match = _ISO_TIME.match(text)
    if match is None:
        return None
    hour, minute, second = (float((match[name] or "0").replace(",", ".")) for name in ("hour", "minute", "second"))
    if hour >= 24 or minute >= 60 or second >= 61:  # a second of 60 is a leap second
        return None
    try:
        day = date.fromisoformat(match["date"].replace("/", "-"))
    except ValueError:
        return None
    digits = re.sub(r"\D", "", match["zone"] or "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:])).total_seconds()
    sign = -1 if (match["zone"] or "").startswith("-") else 1
    of_day = hour * 3600 + minute * 60 + second
    return datetime.combine(day, time(), UTC).timestamp() + of_day - sign * offset
