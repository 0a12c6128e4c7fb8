"""Find words that stand for missing values, so that a column of numbers is not taken for text because of them."""

from __future__ import annotations

import polars as pl

from app.features.values import MISSING_NUMBERS
from app.training.data.column_profile import MAX_UNREADABLE

NEVER_CATEGORIES = ("NULL", "null", "\\N", "<NA>", "#N/A", "NaN", "nan")
"""Words that are no category of anything; NA is Namibia, and none may be an answer."""

PLACEHOLDERS = ("-", "--", "?", ".")
"""What people write where there is nothing to write."""
MAX_DOUBTFUL_SHOWN = 5


def without_missing_words(text: pl.Series) -> pl.Series:
    """Return a column of text with null for the words that mean so to numbers, if all else in it are numbers."""
    words = text.str.strip_chars().str.to_lowercase().is_in(list(MISSING_NUMBERS)).fill_null(False)
    if not words.any():
        return text
    others = text.filter(~words).drop_nulls()
    numbers = others.str.strip_chars().cast(pl.Float64, strict=False).count()
    if not len(others) or numbers < (1 - MAX_UNREADABLE) * len(others):
        return text
    return text.set(words, None)


def doubtful_words(series: pl.Series) -> list[str]:
    """Return the words in a column of text that may stand for a missing value, and may be a category: NA is Namibia."""
    if series.dtype != pl.String:
        return []
    words = series.drop_nulls().unique()
    spelled = words.str.strip_chars().str.to_lowercase()
    found = words.filter(spelled.is_in([*MISSING_NUMBERS, *PLACEHOLDERS]) & ~words.is_in(NEVER_CATEGORIES))
    return sorted(found.to_list())[:MAX_DOUBTFUL_SHOWN]


def missing_words(series: pl.Series) -> list[str]:
    """Return the words in a column of text that a schema should declare as `missing`."""
    if series.dtype != pl.String:
        return []
    found = set(series.filter(series.is_in(NEVER_CATEGORIES).fill_null(False)).unique().to_list())
    return [word for word in NEVER_CATEGORIES if word in found]
