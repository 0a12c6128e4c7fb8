"""Propose which fields share a space: those whose categories are the same things, and not the same small numbers."""

from __future__ import annotations

import re

from app.training.data.column_names import USER_WORDS, words_of
from app.training.data.column_profile import ColumnProfile

MIN_SHARED = 0.5
"""Share of the less varied column's categories that the other must have too."""
MIN_UNNAMED = 10
"""So many categories must be shared where the names have no word in common."""
MIN_NAMED = 2
GENERIC_WORDS = {
    "id", "code", "type", "category", "cat", "class", "kind", "group", "feature", "feat", "field", "col", "column",
    "var", "value", "attr", "attribute", "name", "flag", "is", "has", "of", "the", "in", "at", "num", "count", "c", "f",
    "x", "v", "level", "lvl", "grade", "rank", "tier", "segment", "seg", "bucket", "bin", "range", "band", "score",
    "affinity", "status", "state", "key", "hash", "index", "position", "pos", "slot", "no", "nr", "number",
}  # fmt: skip
GENERIC_VALUES = {
    "yes", "no", "y", "n", "t", "f", "true", "false", "on", "off", "none", "null", "na", "n/a", "nan", "unknown",
    "other", "others", "low", "medium", "mid", "high", "small", "large", "male", "female", "m", "default", "all", "any",
    "-", "?",
}  # fmt: skip


def have_same_things(one: ColumnProfile, other: ColumnProfile) -> bool:
    """Tell whether two columns hold the same things: a user's liked genres and a film's, a last film and a film.

    Categories that are text need a word in common in the names, or many of them in common. Whole numbers overlap by
    chance, whatever they number: they need names that end in one noun.
    """
    left, right = _categories(one), _categories(other)
    shared = left & right
    if len(shared) < MIN_SHARED * max(min(len(left), len(right)), 1):
        return False
    if _are_numbers(left) or _are_numbers(right):
        return bool(head_noun(one.name)) and head_noun(one.name) == head_noun(other.name)
    related = set(words_of(one.name)) & set(words_of(other.name)) - USER_WORDS - {"id"}
    return len(shared - GENERIC_VALUES) >= (MIN_NAMED if related else MIN_UNNAMED)


def head_noun(name: str) -> str:
    """Return what a name names: `userRatedMovie1`, `last_movie_id` and `movies` name a movie, `cat1` nothing."""
    words = [word for word in words_of(name) if word not in ("id", "ids")]
    noun = words[-1].removesuffix("s") if words else ""
    return "" if noun in GENERIC_WORDS | USER_WORDS else noun


def _categories(profile: ColumnProfile) -> set[str]:
    return {re.sub(r"\.0+$", "", text) for text in profile.categories.unique().drop_nulls().to_list()}


def _are_numbers(categories: set[str]) -> bool:
    """Tell whether these are whole numbers, written with leading zeros or not."""
    return bool(categories) and all(re.fullmatch(r"[-+]?[0-9]+", text) for text in categories)
