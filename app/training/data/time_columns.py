"""Find the columns that hold times, and those that only number the rows: both tell when, and not what."""

from __future__ import annotations

import numpy as np
import polars as pl

from app.training.data.column_names import (
    ITEM_WORDS,
    REQUEST_WORDS,
    TIME_WORDS,
    USER_WORDS,
    NamedKind,
    is_id_name,
    named_kind,
    words_of,
)
from app.training.data.column_profile import MAX_UNREADABLE, ColumnProfile
from app.training.data.number_kind import is_uniform
from app.training.data.readers.time_values import seconds_of

LATER_WORDS = {
    "birth", "birthday", "born", "release", "released", "published", "start", "end", "expire", "expires", "expiry",
    "updated", "modified", "attributed", "conversion", "converted", "purchase", "purchased", "registered", "signup",
    "joined", "last", "first", "previous", "next", "install", "delivery", "due", "load", "loaded", "ingested",
}  # fmt: skip
"""Words of times at which something else happened than the row."""
OTHER_TIME = (
    r"(?i)^\s*(?:(?:[a-z]{3,9},?\s+)?\d{1,4}[./\s-]+(?:\d{1,2}|[a-z]{3,9})[./\s-]+\d{2,4}"  # 3.5.2024, Fri, 3 May 2024
    r"|(?:[a-z]{3,9}\s+)?[a-z]{3,9}\s+\d{1,2},?\s+(?:\d{1,2}:\d{2}.*)?\d{4}"  # May 3, 2024; Fri May 03 10:11:12 2024
    r"|\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s*(?:am|pm)?)"  # 10:11:12
    r"(?:$|[\s,:T])"
)
"""Matches times that training cannot read."""
MONTHS = r"(?i)jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
COMPACT_LENGTHS = {8, 10, 12, 14}
"""A date takes 8 digits, or with its hour 8 (in two digits the year) or 10, with minutes 12, with seconds 14."""
UNITS = (1.0, 1e3, 1e6, 1e9)
"""Times since 1970 are in seconds or in a thousandth, millionth or billionth of them."""
EARLIEST_S, LATEST_S = 5e8, 4.1e9
"""A column named like a time holds times of 1985 to 2099 since 1970,"""
UNNAMED_EARLIEST_S, UNNAMED_LATEST_S = 8e8, 2.1e9
"""and one that is not, of 1995 to 2036, unless all are ids from a billion on."""
MIN_TIMES = 0.99
RISING = 0.98
"""A running number falls in at most this share's rest of the steps from row to row."""
LONG_RUN = 50
"""A number that starts again after fewer rows may be a position in a list."""
MIN_NUMBERS = 20
IN_ORDER = 0.95
"""Spearman's correlation with the row number, or with the time, of a number that grows as they do."""
NEARLY_UNIQUE = 0.9


def times_of(profile: ColumnProfile) -> pl.Series | None:
    """Return a column's times, a number that grows with time in each row; None if it does not hold times."""
    named = bool(TIME_WORDS & set(words_of(profile.name)))
    numbers = profile.floats
    if numbers is None:
        times = seconds_of(profile.series)
        dated = times.count() - profile.number_count
        return times if dated > 0 and dated >= MIN_TIMES * len(profile.present) else None
    if named_kind(profile.name) == NamedKind.QUANTITY and not named:
        return None
    for unit in UNITS:
        earliest, latest = profile.smallest / unit, profile.largest / unit
        if named and earliest >= EARLIEST_S and latest <= LATEST_S:
            return numbers
        counted_from_a_billion = earliest >= 1e9 and latest <= 1.1e9
        if earliest >= UNNAMED_EARLIEST_S and latest <= UNNAMED_LATEST_S and not counted_from_a_billion:
            return numbers
    dated = named or "hour" in words_of(profile.name) or profile.distinct_count >= MIN_NUMBERS
    if dated and _are_compact_dates(profile):
        return numbers
    return numbers if named and profile.distinct_count >= MIN_NUMBERS and _rises(numbers) else None


def is_readable_time(times: pl.Series) -> bool:
    """Tell whether training could split by these times: nearly every row has one, as rows without are bad rows."""
    return times.null_count() <= MAX_UNREADABLE * len(times)


def time_rank(profile: ColumnProfile) -> tuple[bool, bool, int]:
    """Order columns of times by how likely they are the rows': by what their names say, and by how fine they are."""
    words = words_of(profile.name)
    return is_named_like_row_time(profile.name), bool(TIME_WORDS & set(words)), profile.distinct_count


def is_named_like_row_time(name: str) -> bool:
    """Tell whether a name speaks of a time, and neither of a birth or release nor of a user or item."""
    words = words_of(name)
    return bool(TIME_WORDS & set(words)) and not LATER_WORDS & set(words) and words[0] not in USER_WORDS | ITEM_WORDS


def is_other_time(profile: ColumnProfile) -> bool:
    """Tell whether a column holds times in a form that training cannot read, such as 03.05.2024 or 10:11."""
    if profile.series.dtype == pl.Time:
        return True
    if profile.series.dtype != pl.String or not len(profile.present) or profile.numbers is not None:
        return False
    matches = profile.present.str.contains(OTHER_TIME)
    words = profile.present.str.extract_all("[A-Za-z]{3,}").list.len() > 0
    return bool(matches.mean() == 1.0 and (~words | profile.present.str.contains(MONTHS)).all())


def running_number(profile: ColumnProfile, times: pl.Series | None) -> str:
    """Return why a column is a running number, of the rows or of requests; empty where it is none.

    Args:
        times: when each row happened, if that is known.
    """
    rows, distinct = len(profile.series), profile.distinct_count
    if profile.has_lists:
        return ""
    is_text = profile.series.dtype == pl.String and profile.numbers is None
    number = _serial_numbers(profile)
    if distinct < MIN_NUMBERS or not (is_text or number is not None):
        return ""
    tells_apart = is_text or _is_serial(profile)
    if tells_apart and distinct == rows:
        return "another value in every row: it tells rows apart, not users or items"
    if any(is_id_name(profile.name, words - REQUEST_WORDS) for words in (USER_WORDS, ITEM_WORDS)):
        return ""
    if tells_apart and profile.present.is_unique().sum() >= NEARLY_UNIQUE * rows:
        return "another value in nearly every row: it tells rows apart, not users or items"
    words = words_of(profile.name)
    if words[:1] and words[0] in REQUEST_WORDS - {"session"} and words[-1] == "id" and distinct * LONG_RUN >= rows:
        return "numbers requests, by its name, and not users or items"
    if number is None or distinct * LONG_RUN < rows or profile.missing_share > 0.5:
        return ""
    order = abs(_rank_correlation(number, pl.Series("row", range(rows))))
    if named_kind(profile.name) == NamedKind.QUANTITY and order < IN_ORDER:
        return ""
    if _rises(number) or _rises(-number) or (profile.is_whole and order >= IN_ORDER):
        return (
            "grows with the row number, and so tells when and not what; "
            "--user-id or --item-id keeps it in a file that is sorted by it"
        )
    if times is not None and abs(_rank_correlation(number, times)) >= IN_ORDER:
        return f"grows with {times.name}, and so tells when and not what"
    return ""


def _serial_numbers(profile: ColumnProfile) -> pl.Series | None:
    """Return a column's numbers, or those at the end of text such as `r00017`; None where it has none."""
    if profile.floats is not None or profile.series.dtype != pl.String:
        return profile.floats
    digits = profile.series.str.extract(r"^[^0-9]*([0-9]{1,15})$").cast(pl.Float64)
    return digits if digits.null_count() == profile.series.null_count() and digits.count() else None


def _rises(numbers: pl.Series) -> bool:
    """Tell whether numbers rise along the rows, in more than a few steps, and in long runs if they start again."""
    steps = numbers.drop_nulls().diff().drop_nulls()
    if len(steps) < MIN_NUMBERS:
        return False
    falls = int((steps < 0).sum())
    rises = int((steps > 0).sum())
    return falls <= (1 - RISING) * len(steps) and rises * LONG_RUN >= len(steps) and rises >= LONG_RUN * falls


def _is_serial(profile: ColumnProfile) -> bool:
    """Tell whether whole numbers, each in a row or few, are numbered or hashed, and not amounts."""
    if profile.numbers is None or not profile.is_whole or named_kind(profile.name) == NamedKind.QUANTITY:
        return False
    # Numbered without gaps, or spread as evenly as hashes are.
    values = np.unique(profile.numbers.to_numpy())
    return len(values) >= 0.5 * (values[-1] - values[0] + 1) or is_uniform(values, np.ones(len(values)))


def _rank_correlation(one: pl.Series, other: pl.Series) -> float:
    ranks = pl.DataFrame({"x": one, "y": other}).drop_nulls().select(pl.col("x").rank(), pl.col("y").rank())
    value = ranks.select(pl.corr("x", "y")).item() if len(ranks) >= MIN_NUMBERS else None
    return float(value) if value is not None and value == value else 0.0


def _are_compact_dates(profile: ColumnProfile) -> bool:
    """Tell whether whole numbers are dates such as 20240503, 2024050310 or, as in Avazu, 24050310."""
    if not profile.is_whole or profile.smallest <= 0 or profile.largest > 1e14:
        return False
    assert profile.numbers is not None
    text = profile.numbers.unique().cast(pl.Int64).cast(pl.String)
    lengths = text.str.len_chars().unique().to_list()
    if len(lengths) != 1 or lengths[0] not in COMPACT_LENGTHS:
        return False
    forms = [text]
    if lengths[0] == 8:
        forms.append("20" + text)
    return any(_parse_all(form) for form in forms)


def _parse_all(text: pl.Series) -> bool:
    day = text.str.slice(0, 8).str.to_date("%Y%m%d", strict=False)
    if day.null_count() or not day.dt.year().is_between(1985, 2099).all():
        return False
    hours, sixties = text.str.slice(8, 2), (text.str.slice(10, 2), text.str.slice(12, 2))
    fits = (hours.cast(pl.Int64, strict=False).fill_null(0) < 24).all()
    return bool(fits and all((part.cast(pl.Int64, strict=False).fill_null(0) < 60).all() for part in sixties))
