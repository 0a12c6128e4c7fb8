"""Explanations as dictionaries, to compare."""

from __future__ import annotations

import msgspec

from app.ranking.explain import Explanation
from app.ranking.logit_parts import LogitPart

PartKey = tuple[str, tuple[str, ...], int | None]
"""A part's kind, its fields, and its order or dimension."""


def key_of(part: LogitPart) -> PartKey:
    return part.part, part.fields, next((n for n in (part.order, part.dimension) if n is not msgspec.UNSET), None)


def parts_of(explanation: Explanation) -> dict[PartKey, float]:
    assert explanation.parts is not msgspec.UNSET, explanation.no_parts
    return {key_of(part): part.value for part in explanation.parts}


def effects_of(explanation: Explanation) -> dict[str, float]:
    return {effect.field: effect.effect for effect in explanation.effects}
