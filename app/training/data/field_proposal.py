"""Propose one field of a schema: its entity, its type, its options, and the reasons."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from app.features.fields import Entity
from app.training.data.column_names import CARRIED_WORDS, ITEM_WORDS, USER_WORDS, words_of
from app.training.data.column_profile import ColumnProfile
from app.training.data.id_columns import ProposedId, is_trait
from app.training.data.number_kind import NumberKind, number_kind
from app.training.data.space_proposal import have_same_things, head_noun

MAX_LIST = 32
PLACE_WORDS, MOST_PLACES = {"position", "pos", "place"}, 200
"""The last word of a column that says where a row was shown, and how many places there may be."""
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
    field_name: str = ""
    """Names the field where its column cannot."""

    @property
    def name(self) -> str:
        """Return the field's name."""
        return self.field_name or self.profile.name

    def yaml(self) -> str:
        """Return the field as two lines of YAML, the first of which is a comment that says why."""
        source = {"source": self.profile.name} if self.name != self.profile.name else {}
        pairs = {"name": self.name, **source, "entity": self.entity, "type": self.type, **self.options}
        missing = f"; {self.profile.missing_share:.0%} missing" if self.profile.missing_share >= 0.005 else ""
        inner = ", ".join(f"{key}: {_yaml_value(value)}" for key, value in pairs.items())
        return f"  # {self.entity}: {self.entity_reason}; {self.type_reason}{missing}\n  - {{{inner}}}"


def propose_field(
    profile: ColumnProfile, usable: Mapping[str, ColumnProfile], ids: Mapping[Entity, ProposedId], labels: pl.Series
) -> FieldProposal:
    """Propose a field for a column.

    Args:
        usable: all columns that can be features, by name.
        ids: the id columns by entity.
        labels: 0 or 1 for each row.
    """
    for entity, own in ids.items():
        if profile.name == own.name:
            reason = f"{profile.distinct_count:,} values"
            return FieldProposal(profile, entity, own.reason, "categorical", reason, {"id": True})
    owners = {entity: is_trait(profile, usable[own.name]) for entity, own in ids.items()}
    owner = max(owners, key=lambda entity: owners[entity], default=None)
    owner = owner if owner and owners[owner] else None
    entity, entity_reason = _entity(profile, ids, owner, owners)
    type_, type_reason, options = _type(profile, labels, usable[ids[owner].name].series if owner else None)
    if type_ == "numeric" and profile.is_whole:
        for own in ids.values():
            # `userRatedMovie1` ends in what `movieId` names, and holds its values: not a quantity.
            if head_noun(profile.name) == head_noun(own.name) and have_same_things(profile, usable[own.name]):
                type_, type_reason, options = "categorical", f"holds the values of {own.name}", {}
    first = first_place(profile)
    if entity == "context" and first is not None:
        hint = f"where it says at which place a row was shown, write entity: position, serve_as: {first}"
        entity_reason += f". {hint} (docs/features.md, Positions)"
    return FieldProposal(profile, entity, entity_reason, type_, type_reason, options)


def first_place(profile: ColumnProfile) -> int | None:
    """Return the first place of a column that says where rows were shown, by its name and values; None of others."""
    if not PLACE_WORDS & set(words_of(profile.name)[-1:]) or not profile.is_whole or profile.distinct_count < 2:
        return None
    places = np.unique(profile.present.cast(pl.Float64).to_numpy())
    is_run = places[-1] - places[0] < MOST_PLACES and len(places) > 0.8 * (places[-1] - places[0])
    return int(places[0]) if is_run and places[0] in (0, 1) else None


def share_spaces(proposals: list[FieldProposal], ids: Mapping[Entity, ProposedId]) -> None:
    """Give one space to fields of both sides whose categories are the same things: a user's liked genres and a film's.

    Fields of one side gain nothing by it: the model learns from a user's genre that is a film's genre too.
    """
    groups: list[list[FieldProposal]] = []
    id_names = {own.name for own in ids.values()}
    order = sorted(proposals, key=lambda one: (one.entity != "item", one.profile.name not in id_names))
    for proposal in (proposal for proposal in order if proposal.type != "numeric"):
        for group in groups:
            if have_same_things(proposal.profile, group[0].profile):
                group.append(proposal)
                break
        else:
            groups.append([proposal])
    for owner, *others in groups:
        if len({one.entity == "item" for one in (owner, *others)}) < 2:
            continue
        for proposal in others:
            owner.options["space"] = proposal.options["space"] = owner.name
            proposal.type_reason += f"; has the values of {owner.profile.name}"


def is_category(profile: ColumnProfile, labels: pl.Series) -> bool:
    """Tell whether a column holds one category a row."""
    return _type(profile, labels, None)[0] == "categorical"


def _entity(
    profile: ColumnProfile, ids: Mapping[Entity, ProposedId], owner: Entity | None, shares: Mapping[Entity, float]
) -> tuple[Entity, str]:
    words = words_of(profile.name)
    sides: dict[Entity, set[str]] = {"user": USER_WORDS, "item": ITEM_WORDS}
    for entity, own in ids.items():
        if not shares[entity]:  # a user's `device` is the request's where it changes from row to row
            sides[entity] = sides[entity] - CARRIED_WORDS.difference(words_of(own.name))
    for entity, entity_words in sides.items():
        # Values go before a name: the `customer` of an advertisement is who pays for it.
        if words and words[0] in entity_words and (owner in (None, entity) or shares.get(entity)):
            return entity, f"named {words[0]}..."
    if owner:
        return owner, f"the same in {shares[owner]:.0%} of the rows of one {ids[owner].name}"
    for entity, entity_words in sides.items():
        if set(words) & entity_words:
            return entity, "by a word in its name"
    if not ids:
        return "context", "no id column was found: move it to user or item where you know better"
    names = [own.name for own in ids.values()]
    return (
        "context",
        f"changes with the request: {' and '.join(names)} {'do' if len(names) > 1 else 'does'} not decide it",
    )


def _type(profile: ColumnProfile, labels: pl.Series, owner: pl.Series | None) -> tuple[str, str, dict[str, object]]:
    if profile.is_weighted:
        return "multi_categorical", "JSON objects", {"weighted": True, "max_length": _max_length(profile)}
    if isinstance(profile.series.dtype, pl.List) or profile.is_json:
        return "multi_categorical", "lists", {"max_length": _max_length(profile)}
    if profile.separator:
        reason = f"lists divided by {profile.separator}"
        return "multi_categorical", reason, {"separator": profile.separator, "max_length": _max_length(profile)}
    if profile.numbers is None or profile.has_padded_codes:
        written = "true or false" if profile.series.dtype == pl.Boolean else "text"
        return "categorical", f"{written}, {profile.distinct_count:,} values", {}
    kind = number_kind(profile, labels, owner) if profile.is_whole else NumberKind(False, "numbers")
    if kind.is_code:
        return "categorical", kind.reason, {}
    if profile.is_skewed:
        options: dict[str, object] = {"transforms": ["log1p", "standardise"], "buckets": 10}
        return "numeric", "most are small and some large, as counts are", options
    return "numeric", kind.reason, {"buckets": 10}


def _max_length(profile: ColumnProfile) -> int:
    return min(MAX_LIST, profile.longest_list)


def _yaml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml_value, value))}]"
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) and text.lower() not in YAML_WORDS
    if isinstance(value, int) or plain:
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in quoted) + '"'
