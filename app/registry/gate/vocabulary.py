"""Check that the entities in the feature store look like those that a version was trained on.

Ids are judged apart from the features: a catalogue may well hold many items that training never saw, so that few known
ids say nothing. But where the version knows ids, and none that it was trained on is in the store, and it knows none of
those that are, one program writes ids otherwise than another: `12345007` and `1.2345007E7`, `42` and `u42`. Every user
and item would be unknown to it when it serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.features.encoder import Encoder
from app.features.fields import Numeric
from app.features.slots import EMPTY_KEY
from app.registry.artifact.artifact import Artifact
from app.registry.gate.gate_report import GateCheck
from app.registry.gate.gate_task import FeatureSample

MIN_GIVEN = 20
"""Values of a field in the store below which it says nothing that the version knows none of them."""

Entities = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class _Field:
    """What a version knows of the values of a field."""

    is_id: bool
    is_number: bool
    given: int
    known: int

    @property
    def share(self) -> float:
        """The share of its values that training saw; of a number whether any is given. 0 if there are none."""
        return float(self.given > 0) if self.is_number else self.known / self.given if self.given else 0.0


def check_vocabulary(new: Artifact, sample: FeatureSample, min_known: float) -> GateCheck:
    """Compare the sample's values with the version's vocabulary: side by side, field by field, and ids apart.

    Args:
        sample: holds those entities of the version's golden requests that are in the store, besides others.
        min_known: least share in [0, 1] of a side's values that the version must know, averaged over its fields but
            the id; 0 asks for nothing.
    """
    vocabulary_V = np.sort(new.program.vocabulary_V.numpy())
    golden = new.manifest.golden
    trained_users: Entities = {request.user_id: request.user for request in golden}
    trained_items: Entities = {
        item_id: item for request in golden for item_id, item in zip(request.item_ids, request.items, strict=True)
    }
    figures: dict[str, float] = {}
    problems: list[str] = []
    for encoder, stored, trained in (
        (new.user_encoder, sample.users, trained_users),
        (new.item_encoder, sample.items, trained_items),
    ):
        if stored:
            fields = _known(encoder, stored, vocabulary_V)
            features = {name: field.share for name, field in fields.items() if not field.is_id}
            ids = [field.share for field in fields.values() if field.is_id]
            if features:
                figures[f"known_{encoder.side}"] = round(float(np.mean(list(features.values()))), 4)
            if ids:
                figures[f"known_{encoder.side}_ids"] = round(max(ids), 4)
            if min_known:
                problems += _too_few(encoder.side, features, figures, min_known)
                problems += _unknown_values(encoder, fields, stored, trained, vocabulary_V)
    figures |= {"users": len(sample.users), "items": len(sample.items)}
    if not problems:
        return GateCheck("schema", True, figures=figures)
    return GateCheck("schema", False, "schema", problems[0], figures, comparison=True)


def _too_few(side: str, features: Mapping[str, float], figures: Mapping[str, float], least: float) -> list[str]:
    """Return what is wrong with a side's features on the whole."""
    name = f"known_{side}"
    if name not in figures or figures[name] >= least:
        return []
    share = f"{figures[name]:.0%} of what the store holds is known to the version ({name}), {least:.0%} is asked"
    return [f"{share}; least of all {min(features, key=lambda field: features[field])}"]


def _unknown_values(
    encoder: Encoder,
    fields: Mapping[str, _Field],
    stored: Entities,
    trained: Entities,
    vocabulary_V: npt.NDArray[np.int64],
) -> list[str]:
    """Return which fields have known values in training alone, ids first."""
    in_training = _known(encoder, trained, vocabulary_V) if trained else {}
    problems = []
    for name in sorted(fields, key=lambda name: not fields[name].is_id):
        field = fields[name]
        if field.known or field.is_number or name not in in_training or not in_training[name].known:
            continue
        if field.is_id:
            problems.append(
                f"no {encoder.side} of the store is known to the version by its id, and none that it was trained on is "
                f"in the store: trained on {_some(trained)}, stored {_some(stored)}. Ids must be written alike"
            )
        elif field.given >= MIN_GIVEN:
            problems.append(f"none of the {field.given} values of {name} in the store is known to the version")
    return problems


def _some(entities: Entities) -> str:
    return ", ".join(repr(entity[:30]) for entity in list(entities)[:2])


def _known(encoder: Encoder, raws: Entities, vocabulary_V: npt.NDArray[np.int64]) -> dict[str, _Field]:
    """Return for each stored field, and for the id, how many values there are, and how many of them training saw."""
    slots = encoder.encode_many(list(raws.values()), list(raws), lambda _: None)
    absent = encoder.encode({}, None, lambda _: None)
    known_NS = np.isin(slots.keys, vocabulary_V)
    fields = {}
    for field, columns in encoder.layout:
        if not field.is_stored:
            continue
        if isinstance(field, Numeric):
            values_NS = slots.values[:, columns]
            given_NS = np.isfinite(values_NS) & (values_NS != absent.values[columns])
            fields[field.name] = _Field(False, True, int(given_NS.sum()), 0)
        else:
            keys_NS = slots.keys[:, columns]
            given_NS = (keys_NS != EMPTY_KEY) & (keys_NS != absent.keys[columns])
            known = int((known_NS[:, columns] & given_NS).sum())
            fields[field.name] = _Field(field.is_id, False, int(given_NS.sum()), known)
    return fields
