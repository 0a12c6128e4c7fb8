"""Propose one field of a schema: its entity, its type, its options, and the reasons."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import polars as pl

from app.features.fields import Entity
from app.training.data.column_profile import ColumnProfile, shared_categories
from app.training.data.column_roles import ITEM_WORDS, USER_WORDS, words_of

CODE_WORDS = {
    "id", "code", "zip", "type", "category", "cat", "class", "kind", "group", "segment", "brand", "genre", "country",
    "city", "region", "hour", "weekday", "month", "gender", "os", "browser",
}  # fmt: skip
MIN_TRAIT_SHARE = 0.98
"""A column is a trait of a user or item if at least this share of the rows has the usual value of their id."""
FEW_NUMBERS = 12
MAX_LIST = 32
MIN_SHARED = 0.5
YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


@dataclass
class FieldProposal:
    """Holds a proposed field of the schema, with the reasons for its entity and type."""

    profile: ColumnProfile
    entity: Entity
    entity_reason: str
    type: str
    type_reason: str
    options: dict[str, object] = field(default_factory=dict)

    def yaml(self) -> str:
        """Return the field as two lines of YAML, the first of which is a comment that says why."""
        pairs = {"name": self.profile.name, "entity": self.entity, "type": self.type, **self.options}
        missing = f"; {self.profile.missing_share:.0%} missing" if self.profile.missing_share >= 0.005 else ""
        inner = ", ".join(f"{key}: {_yaml_value(value)}" for key, value in pairs.items())
        return f"  # {self.entity}: {self.entity_reason}; {self.type_reason}{missing}\n  - {{{inner}}}"


def propose_field(profile: ColumnProfile, usable: dict[str, ColumnProfile], ids: dict[Entity, str]) -> FieldProposal:
    """Propose a field for a column.

    Args:
        usable: all columns that can be features, by name.
        ids: the id columns by entity.
    """
    for entity, name in ids.items():
        if profile.name == name:
            reason = f"{profile.distinct_count:,} values"
            return FieldProposal(profile, entity, "its id by its name", "categorical", reason, {"id": True})
    entity, entity_reason = _entity(profile, usable, ids)
    type_, type_reason, options = _type(profile)
    if type_ == "numeric" and profile.is_whole:
        for name in ids.values():
            # `userRatedMovie1` ends in what `movieId` names, and holds its values: not a quantity.
            same_word = words_of(profile.name)[-1:] == words_of(name)[:1]
            if same_word and shared_categories(profile, usable[name]) >= MIN_SHARED:
                type_, type_reason, options = "categorical", f"holds the values of {name}", {}
    return FieldProposal(profile, entity, entity_reason, type_, type_reason, options)


def share_spaces(proposals: list[FieldProposal], ids: dict[Entity, str]) -> None:
    """Give one space to fields whose categories are the same things: a user's liked genres and a film's."""
    owners: dict[str, FieldProposal] = {}
    order = sorted(proposals, key=lambda one: (one.entity != "item", one.profile.name != ids.get(one.entity)))
    for proposal in (proposal for proposal in order if proposal.type != "numeric"):
        profile = proposal.profile
        for space, owner in owners.items():
            related = set(words_of(profile.name)) & set(words_of(owner.profile.name)) - USER_WORDS - {"id"}
            both_text = profile.numbers is None and owner.profile.numbers is None and not profile.is_json
            if (related or both_text) and shared_categories(profile, owner.profile) >= MIN_SHARED:
                owner.options["space"] = proposal.options["space"] = space
                proposal.type_reason += f"; has the values of {owner.profile.name}"
                break
        else:
            owners[profile.name] = proposal


def _entity(profile: ColumnProfile, usable: dict[str, ColumnProfile], ids: dict[Entity, str]) -> tuple[Entity, str]:
    words = words_of(profile.name)
    sides: tuple[tuple[Entity, set[str]], ...] = (("user", USER_WORDS), ("item", ITEM_WORDS))
    for entity, entity_words in sides:
        if words and words[0] in entity_words:
            return entity, f"named {words[0]}..."
    share = {entity: profile.constant_within(usable[name].series) for entity, name in ids.items()}
    for entity in sorted(share, key=lambda entity: -share[entity]):
        if share[entity] >= MIN_TRAIT_SHARE:
            return entity, f"the same in {share[entity]:.0%} of the rows of one {ids[entity]}"
    for entity, entity_words in sides:
        if set(words) & entity_words:
            return entity, "by a word in its name"
    if not ids:
        return "context", "no id column was found: move it to user or item where you know better"
    return "context", f"changes with the request: {' and '.join(ids.values())} do not decide it"


def _type(profile: ColumnProfile) -> tuple[str, str, dict[str, object]]:
    if profile.is_weighted:
        return "multi_categorical", "JSON objects", {"weighted": True, "max_length": _max_length(profile)}
    if isinstance(profile.series.dtype, pl.List) or profile.is_json:
        return "multi_categorical", "lists", {"max_length": _max_length(profile)}
    if profile.separator:
        reason = f"lists divided by {profile.separator}"
        return "multi_categorical", reason, {"separator": profile.separator, "max_length": _max_length(profile)}
    if profile.numbers is None or profile.has_padded_codes:
        return "categorical", f"text, {profile.distinct_count:,} values", {}
    if profile.is_whole and CODE_WORDS & set(words_of(profile.name)):
        return "categorical", f"whole numbers that name something, {profile.distinct_count:,} values", {}
    if profile.is_whole and profile.distinct_count <= FEW_NUMBERS:
        return "categorical", f"only {profile.distinct_count} whole numbers", {}
    if profile.is_skewed:
        options: dict[str, object] = {"transforms": ["log1p", "standardise"], "buckets": 10}
        return "numeric", "most are small and some large, as counts are", options
    return "numeric", "numbers", {"buckets": 10}


def _max_length(profile: ColumnProfile) -> int:
    return min(MAX_LIST, profile.longest_list)


def _yaml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml_value, value))}]"
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) and text.lower() not in YAML_WORDS
    return text if isinstance(value, int) or plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
