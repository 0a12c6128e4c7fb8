"""Find the label among the columns of a table, and what cannot be a feature."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from app.errors import ConfigError
from app.features.fields import RAW_NAME
from app.features.times import HOW_TO_WRITE
from app.training.data.column_names import plain_name, words_of
from app.training.data.column_profile import SIGNS, ColumnProfile
from app.training.data.label_leaks import label_leak
from app.training.data.label_threshold import label_threshold
from app.training.data.labels import MINUS, ZERO, ZERO_OR_ONE, LabelReading
from app.training.data.time_columns import is_other_time

LABEL_NAMES = (
    "label", "click", "clicked", "is_click", "is_clicked", "target", "y", "converted", "conversion", "is_conversion",
    "liked", "is_attributed", "purchased", "bought", "installed", "clk", "is_clk", "isclick", "isclicked", "click_flag",
    "clicked_flag", "has_clicked", "has_click", "did_click", "is_conv", "conv",
)  # fmt: skip
RATING_WORDS = {"rating", "stars", "score", "rate", "plays", "clicks", "listens", "views", "dwell", "watch"}
PLAIN_LABELS = {"0", "0.0", "false", "1", "1.0", "true"}
"""Where several columns have two values, a label of these goes before one of yes and no."""
MIN_COPIED, MIN_COPIED_SHARE = 20, 0.01
"""A copy is one where so many rows, and this share of them, have a value."""
MOST_DOUBTFUL = 0.05
"""Share of the values of a column with a label's name that may be no label, so that a user is asked."""
SOURCE_NAME = re.compile(RAW_NAME)


def find_label_column(path: Path, profiles: dict[str, ColumnProfile]) -> str:
    """Return the column of 0 and 1 with a label's name, or the only one. Raises ConfigError if there is neither."""
    binary = [name for name, profile in profiles.items() if _is_binary(profile)]
    named = [name for name in binary if _has_label_name(name)]
    plain = [name for name in binary if set(profiles[name].as_text.str.to_lowercase().unique()) <= PLAIN_LABELS]
    if not named and (doubtful := [name for name, profile in profiles.items() if _is_nearly_label(profile)]):
        others = labels_of(profiles[doubtful[0]]).null_count()
        raise ConfigError(
            f"{path}: {doubtful[0]} has a label's name, and {others:,} of its values are neither 0 nor 1: "
            f"name the label with --label, {doubtful[0]} or another column"
        )
    for found in (named, plain, binary):
        if found and (len(found) == 1 or found is named):
            return found[0]
    raise ConfigError(
        f"{path}: {'several columns are' if binary else 'no column is'} 0 or 1 throughout"
        f"{' (' + ', '.join(binary) + ')' if binary else ''}: name the label with --label{_from_threshold(profiles)}"
    )


def _from_threshold(profiles: dict[str, ColumnProfile]) -> str:
    """Say how a column such as a rating becomes a label; empty where no column is named so."""
    for name, profile in profiles.items():
        proposal = label_threshold(profile.series) if RATING_WORDS & set(words_of(name)) else ""
        if proposal:
            return f", or: {name} {proposal}"
    return ""


def _is_binary(profile: ColumnProfile) -> bool:
    labels = labels_of(profile)
    return labels.null_count() == 0 and profile.distinct_count == 2 and labels.n_unique() == 2


def _has_label_name(name: str) -> bool:
    return plain_name(name).lower() in LABEL_NAMES


def _is_nearly_label(profile: ColumnProfile) -> bool:
    """Return whether a column has a label's name and is 0 or 1 but for a few rows, which training leaves out."""
    if not _has_label_name(profile.name):
        return False
    labels = labels_of(profile)
    return labels.drop_nulls().n_unique() == 2 and labels.null_count() <= MOST_DOUBTFUL * len(labels)


def labels_of(profile: ColumnProfile, reading: LabelReading = ZERO_OR_ONE) -> pl.Series:
    """Return a column as labels 0 and 1, null where a value is neither."""
    seen: set[str] = set()
    labels = reading.read(profile.series, seen).cast(pl.Float64)
    if seen >= {MINUS, ZERO}:
        return pl.Series(profile.name, [None] * len(labels), dtype=pl.Float64)
    return labels


def reason_to_leave_out(profile: ColumnProfile, labels: pl.Series) -> str:
    """Return why a column can be neither a feature nor a time; empty where it can."""
    reason = cannot_be_read(profile)
    if reason:
        return reason
    if not isinstance(profile.series.dtype, pl.List) and profile.distinct_count == 1 and profile.missing_share == 0:
        return f"always {profile.present[0]}"
    return label_leak(profile, labels)


def cannot_be_id(profile: ColumnProfile) -> str:
    """Return why a column cannot be an id, though a user says so; empty where it can."""
    return cannot_be_read(profile) or ("it has lists" if profile.has_lists else "")


def cannot_be_read(profile: ColumnProfile) -> str:
    """Return why a column is no kind of field and no time; empty where it is one."""
    if not SOURCE_NAME.fullmatch(profile.name):
        return "it has no name, or one that no field can read; rename the column"
    if profile.missing_share == 1.0:
        return "always missing"
    dtype = profile.series.dtype
    if isinstance(dtype, pl.List):
        return (
            ""
            if isinstance(dtype.inner, pl.String | pl.Boolean) or dtype.inner.is_integer()
            else f"{dtype} is no list of categories"
        )
    if not (
        dtype.is_numeric()
        or (dtype.is_temporal() and dtype != pl.Duration)
        or dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)
    ):
        return f"{dtype} is no kind of field; write it as numbers or text"
    if profile.looks_like_lists and not profile.is_json:
        return "its lists are not JSON: write them with double quotes, or without brackets and with | between the items"
    if profile.unfit_json:
        return f"JSON such as {profile.unfit_json[:40]} is neither a list of categories nor an object of weights"
    return ""


def cannot_be_field(profile: ColumnProfile) -> str:
    """Return why a column that is not the time of the rows cannot be a field either; empty where it can."""
    reason = "a time: a field needs what comes back, such as its hour or weekday"
    if isinstance(profile.series.dtype, pl.Date | pl.Datetime):
        return reason
    return f"{reason}; to split by it {HOW_TO_WRITE}" if is_other_time(profile) else ""


def number_hint(profile: ColumnProfile) -> str:
    """Say how numbers have to be written that no numeric field reads; empty where a column holds none."""
    if not profile.has_signed_numbers:
        return ""
    example = profile.present.filter(profile.present.str.contains(SIGNS))[0].strip()
    return f"; to be numbers, {example} and the like are written as 1234.5"


def copied_column(profile: ColumnProfile, others: Iterable[ColumnProfile]) -> str:
    """Return the name of one of the other columns that says the same in every row; empty where none does.

    Values may be written differently (`DE` and `Germany`), as long as each of one column goes with one of the other.
    A column that is nearly always missing is the copy of others like it by chance.
    """
    if len(profile.present) < max(MIN_COPIED, MIN_COPIED_SHARE * len(profile.series)):
        return ""
    for other in others:
        if other.distinct_count != profile.distinct_count or other.series.null_count() != profile.series.null_count():
            continue
        if profile.series.dtype == other.series.dtype and profile.series.equals(other.series, null_equal=True):
            return other.name
        if isinstance(profile.series.dtype, pl.List) or isinstance(other.series.dtype, pl.List):
            continue
        if profile.numbers is not None or other.numbers is not None:
            if (
                profile.floats is not None
                and other.floats is not None
                and profile.floats.equals(other.floats, null_equal=True)
            ):
                return other.name
            continue
        pairs = pl.DataFrame({"one": profile.as_text, "other": other.as_text})
        if pairs.n_unique() == profile.distinct_count + (profile.series.null_count() > 0):
            return other.name
    return ""
