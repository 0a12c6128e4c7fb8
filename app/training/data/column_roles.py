"""Find the label, the time and the ids among the columns of a table, and what cannot be a feature."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from app.errors import ConfigError
from app.training.data.column_profile import ColumnProfile
from app.training.data.source import LABELS

LABEL_NAMES = ("label", "click", "clicked", "is_click", "is_clicked", "target", "y", "converted", "conversion", "liked")
TIME_WORDS = {"time", "timestamp", "ts", "date", "datetime", "day", "created", "at", "epoch"}
USER_WORDS = {"user", "u", "uid", "visitor", "customer", "member", "device", "session", "client", "person", "viewer"}
ITEM_WORDS = {
    "item", "i", "iid", "movie", "film", "product", "ad", "ads", "article", "video", "creative", "campaign", "song",
    "track", "book", "news", "doc", "document", "sku", "listing", "hotel", "offer", "banner",
}  # fmt: skip
FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


def words_of(name: str) -> list[str]:
    """Split a name: `userRatedMovie12` and `user_rated_movie_12` are user, rated, movie."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def find_label_column(path: Path, profiles: dict[str, ColumnProfile]) -> str:
    """Return the column of 0 and 1 with a label's name, or the only one. Raises ConfigError if there is neither."""
    binary = [
        name
        for name, profile in profiles.items()
        if labels_of(profile).null_count() == 0 and profile.distinct_count == 2
    ]
    named = [name for name in binary if name.lower() in LABEL_NAMES]
    if named or len(binary) == 1:
        return (named or binary)[0]
    raise ConfigError(
        f"{path}: {'several columns are' if binary else 'no column is'} 0 or 1 throughout"
        f"{' (' + ', '.join(binary) + ')' if binary else ''}: name the label with --label"
    )


def labels_of(profile: ColumnProfile) -> pl.Series:
    """Return a column as labels 0 and 1, null where a value is neither."""
    if isinstance(profile.series.dtype, pl.List):
        return pl.Series([None], dtype=pl.Float64)
    text = profile.series.cast(pl.String, strict=False).str.strip_chars().str.to_lowercase()
    return text.replace_strict(LABELS, default=None, return_dtype=pl.Float64)


def is_time(profile: ColumnProfile) -> bool:
    """Tell whether a column is named like a time and holds large positive numbers."""
    if not TIME_WORDS & set(words_of(profile.name)) or profile.missing_share > 0.01:
        return False
    return profile.numbers is not None and profile.largest > 1e8 and profile.smallest > 0


def reason_to_leave_out(profile: ColumnProfile, labels: pl.Series, *, is_id: bool) -> str:
    """Return why a column cannot be a feature; empty where it can."""
    if not FIELD_NAME.fullmatch(profile.name):
        return "its name cannot be a field's: letters, digits, _, - and . only; rename the column"
    if profile.missing_share == 1.0:
        return "always missing"
    if isinstance(profile.series.dtype, pl.Struct | pl.Date | pl.Datetime | pl.Time | pl.Duration):
        return f"{profile.series.dtype} is no kind of field; write it as numbers or text"
    if isinstance(profile.series.dtype, pl.List):
        return ""
    if profile.distinct_count == 1 and profile.missing_share == 0:
        return f"always {profile.present[0]}"
    all_distinct = profile.distinct_count == len(profile.series) > 20
    if not is_id and all_distinct and (profile.numbers is None or profile.is_whole):
        return "another value in every row: it tells rows apart, not users or items"
    if profile.tells_label(labels):
        return "tells the label: it would not be known when a request is made"
    return ""


def find_id_column(profiles: dict[str, ColumnProfile], words: set[str]) -> str | None:
    """Return the column named like an entity's id (`user_id`, `uid`, `user`); of several the most varied one."""

    def is_named(profile: ColumnProfile) -> bool:
        parts = words_of(profile.name)
        if not parts or parts[0] not in words or isinstance(profile.series.dtype, pl.List):
            return False
        return parts[1:] == ["id"] or (len(parts) == 1 and len(parts[0]) > 1)

    named = [
        profile for profile in profiles.values() if is_named(profile) and (profile.numbers is None or profile.is_whole)
    ]
    return max(named, key=lambda profile: profile.distinct_count).name if named else None
