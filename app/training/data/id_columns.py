"""Find the columns of the user's and the item's id: by their names, and else by what they decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from app.features.fields import SIDES, Entity
from app.training.data.column_names import CODE_WORDS, ID_ENDINGS, ITEM_WORDS, USER_WORDS, is_id_name, words_of
from app.training.data.column_profile import ColumnProfile

MIN_TRAIT_SHARE = 0.98
"""A column is a trait of a user or item if at least this share of the rows has the usual value of their id."""
UNEXPLAINED = 0.5
"""And if their id leaves at most this share of the rows unexplained that its most frequent value leaves."""
MIN_IDS = 20
MIN_REPEATS = 2.0
"""An id without a name that says so occurs in so many rows, in the mean."""
MIN_ID_SHARE = 0.002
"""And has at least this many values, as a share of the rows."""
USER_TRAITS = {
    "age",
    "gender",
    "sex",
    "occupation",
    "income",
    "zip",
    "education",
    "marital",
    "language",
    "os",
    "browser",
}
ITEM_TRAITS = {
    "price",
    "genre",
    "genres",
    "brand",
    "title",
    "category",
    "author",
    "publisher",
    "year",
    "tags",
    "seller",
}
NOT_IDS = CODE_WORDS - {"id", "code", "hash", "uuid", "guid"}

IsCode = Callable[[ColumnProfile], bool]


class ProposedId(NamedTuple):
    """Names the column of an entity's id, and says why it is that."""

    name: str
    reason: str


def named_id(profiles: Mapping[str, ColumnProfile], words: set[str]) -> str | None:
    """Return the column named like an entity's id (`user_id`, `uid`, `user`); of several the most varied one."""
    named = [
        profile
        for name, profile in profiles.items()
        if is_id_name(name, words) and not profile.has_lists and (_says_id(name) or profile.distinct_count >= MIN_IDS)
    ]
    named = [profile for profile in named if profile.numbers is None or profile.is_whole]
    return max(named, key=lambda profile: profile.distinct_count).name if named else None


def _says_id(name: str) -> bool:
    """Tell whether a name says id, as `device_id` does; `device` may be mobile or desktop."""
    words = words_of(name)
    return words[-1] in ID_ENDINGS or words[0] in ("user", "item", "uid", "iid")


def is_trait(profile: ColumnProfile, ids: ColumnProfile) -> float:
    """Return the share of rows with the usual value of their id, or 0 where the column is no trait of that id."""
    share = profile.constant_within(ids)
    explained = 1 - share <= UNEXPLAINED * (1 - profile.mode_share)
    return share if share >= MIN_TRAIT_SHARE and explained else 0.0


def ids_by_values(
    profiles: Mapping[str, ColumnProfile], named: Mapping[Entity, ProposedId], is_code: IsCode
) -> dict[Entity, ProposedId]:
    """Return the ids, also those that no name told: categories that many rows share and that no other one decides.

    Of two, that of the columns that users have (an age) is the user's, that of those that items have (a price) is the
    item's; else the one that stays the same from row to row is the user's, as the rows of one follow each other; else
    the one that decides more, or is more varied.
    """
    found, known = dict(named), [profiles[own.name] for own in named.values()]
    if len(known) == len(SIDES):
        return found
    candidates = [one for one in profiles.values() if one not in known and _may_be_id(one) and is_code(one)]
    # What an id decides is its trait; what decides an id names something else, such as an order or a session.
    ids = [
        one
        for one in candidates
        if not any(is_trait(one, other) or is_trait(other, one) for other in known)
        and not any(_decides(other, one) for other in candidates if other is not one)
    ]
    traits = {
        one: [other.name for other in profiles.values() if other is not one and is_trait(other, one)] for one in ids
    }
    ids.sort(key=lambda one: (len(traits[one]), one.distinct_count), reverse=True)
    for place, profile in enumerate(ids):
        free: list[Entity] = [entity for entity in SIDES if entity not in found]
        side = _side_of_name(profile.name)
        if side is None and len(free) == 2:
            side = _likelier_side(profile, ids[place + 1 :], [profiles[name] for name in traits[profile]])
        elif side is None and free:
            side = free[0]
        if side in free:
            decides = f"decides {', '.join(traits[profile][:3])}" if traits[profile] else "the most varied category"
            reason = f"its id, by its values: {decides}; --{side}-id says otherwise"
            found[side] = ProposedId(profile.name, reason)
    return found


def _decides(one: ColumnProfile, other: ColumnProfile) -> bool:
    """Tell whether the other column is a trait of this one; of two that decide each other, the more varied decides."""
    if not is_trait(other, one):
        return False
    return one.distinct_count > other.distinct_count or not is_trait(one, other)


def _may_be_id(profile: ColumnProfile) -> bool:
    present = len(profile.present)
    if profile.has_lists or profile.missing_share > 0.1 or NOT_IDS & set(words_of(profile.name)):
        return False
    return present / MIN_REPEATS >= profile.distinct_count >= max(MIN_IDS, MIN_ID_SHARE * present)


def _side_of_name(name: str) -> Entity | None:
    first = words_of(name)[:1]
    return "user" if USER_WORDS & set(first) else "item" if ITEM_WORDS & set(first) else None


def _likelier_side(profile: ColumnProfile, others: list[ColumnProfile], traits: list[ColumnProfile]) -> Entity:
    words = {word for trait in traits for word in words_of(trait.name)}
    lists = any(trait.has_lists for trait in traits)  # tags and genres are what things have
    votes = len(words & USER_TRAITS) - len(words & ITEM_TRAITS) - lists
    if votes == 0 and others:
        votes = (_stays(profile) > 2 * _stays(others[0]) + 0.1) - (_stays(others[0]) > 2 * _stays(profile) + 0.1)
    return "item" if votes < 0 else "user"


def _stays(profile: ColumnProfile) -> float:
    """Return the share of rows with the value of the row before."""
    text = profile.as_text
    return float((text == text.shift(1)).fill_null(False).mean() or 0.0)  # type: ignore[arg-type]
