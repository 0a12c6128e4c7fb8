"""What a sample of users or items holds of each field: how many values, which fit no slot, which a version knows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from app.features.encoder import Encoder
from app.features.fields import Numeric
from app.features.slots import EMPTY_KEY

MAX_VALUE_BYTES = 64 << 10
"""A stored value that is longer is dropped as it arrives (docs/redis.md)."""
SHOWN_VALUES, SHOWN = 3, 40
"""How many examples are kept of a field, and how many letters of each are shown."""
_number = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

Raw = Mapping[str, Any]


@dataclass
class FieldValues:
    """What the sampled entities have in one field of the schema."""

    raw_name: str
    is_id: bool
    is_number: bool
    present: int = 0
    """Entities that have the raw field."""
    given: int = 0
    """Values that are none of those that count as missing; of a number, entities that have one."""
    known: int = 0
    """Values that the version has learned something of; of a number all."""
    invalid: list[str] = field(default_factory=list)
    """Raw values that fit no slot, as far as they are shown."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Kinds of the raw values: `list`, `object`, `number`, `boolean` or `text`."""
    examples: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Some raw values that the version does not know, or not all of."""
    keys_of: dict[str, frozenset[int]] = field(default_factory=dict)
    """Keys of the values of a categorical field, by entity."""

    @property
    def kind(self) -> str:
        """The kind of nearly all values; empty where they are of several, or few."""
        (most, count), *_ = self.kinds.most_common(1) or [("", 0)]
        return most if count >= 0.9 * self.kinds.total() else ""

    @property
    def unknown_share(self) -> float:
        """The share of the values that the version does not know; 0 where there are none."""
        return 1 - self.known / self.given if self.given else 0.0


def field_values(
    encoder: Encoder, ids: Sequence[str | None], raws: Sequence[Raw], vocabulary_V: npt.NDArray[np.int64] | None
) -> dict[str, FieldValues]:
    """Look at N entities, field by field of one side.

    Args:
        vocabulary_V: sorted keys that a version knows; None knows all.
    """
    found = {one.name: FieldValues(one.raw_name, one.is_id, isinstance(one, Numeric)) for one, _ in encoder.layout}
    absent = encoder.encode({}, None, lambda _: None)
    for number, (entity_id, raw) in enumerate(zip(ids, raws, strict=True)):
        invalid: list[str] = []
        slots = encoder.encode(raw, entity_id, invalid.append)
        for one, columns in encoder.layout:
            values = found[one.name]
            value = entity_id if one.is_id else raw.get(one.raw_name)
            if value is None or value == "":
                continue
            values.present += 1
            values.kinds[kind_of(value)] += 1
            if len(values.examples) < SHOWN_VALUES and (text := shown(value)) not in values.examples:
                values.examples.append(text)
            if one.name in invalid or len(str(value).encode()) > MAX_VALUE_BYTES:
                values.invalid.append(shown(value))
                continue
            if isinstance(one, Numeric):
                is_given = bool(np.isfinite(slots.values[columns]).all())
                values.given += is_given
                values.known += is_given
                continue
            keys = slots.keys[columns]
            given = keys[(keys != EMPTY_KEY) & (keys != absent.keys[columns])]
            known = len(given) if vocabulary_V is None else int(np.isin(given, vocabulary_V).sum())
            values.given += len(given)
            values.known += known
            if known < len(given) and len(values.unknown) < SHOWN_VALUES:
                values.unknown.append(shown(value))
            values.keys_of[str(number) if entity_id is None else entity_id] = frozenset(given.tolist())
    return found


def kind_of(value: object) -> str:
    """Return what a value is, or what its text in a hash or a CSV file is."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if not isinstance(value, str):
        return "object" if isinstance(value, Mapping) else "list" if isinstance(value, Sequence) else "text"
    text = value.strip()
    if text.lower() in ("true", "false"):
        return "boolean"
    if _number.fullmatch(text):
        return "number"
    if text[:1] in ("[", "{"):
        try:
            return "list" if isinstance(json.loads(text), list) else "object"
        except ValueError:
            return "text"
    return "text"


def shown(value: object) -> str:
    """Return a value as a message shows it, cut short."""
    text = repr(value if isinstance(value, str | int | float) else str(value))
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
