"""Check that the entities in the feature store look like those that a version was trained on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from app.features.encoder import Encoder
from app.features.fields import Numeric
from app.features.slots import EMPTY_KEY
from app.registry.artifact.artifact import Artifact
from app.registry.gate.gate_report import GateCheck
from app.registry.gate.gate_task import FeatureSample


def check_vocabulary(new: Artifact, sample: FeatureSample, min_known: float) -> GateCheck:
    """Compare the sample's values with the version's vocabulary, side by side.

    Args:
        min_known: least share in [0, 1] of a side's values that the version must know, averaged over its fields.
    """
    vocabulary_V = np.sort(new.program.vocabulary_V.numpy())
    figures: dict[str, float] = {}
    worst_fields: dict[str, str] = {}
    for encoder, raws in ((new.user_encoder, sample.users), (new.item_encoder, sample.items)):
        shares = _known_shares(encoder, raws, vocabulary_V) if raws else {}
        if shares:
            figures[f"known_{encoder.side}"] = round(float(np.mean(list(shares.values()))), 4)
            worst_fields[f"known_{encoder.side}"] = min(shares, key=lambda name: shares[name])
    low = [name for name, share in figures.items() if share < min_known]
    figures |= {"users": len(sample.users), "items": len(sample.items)}
    if not low:
        return GateCheck("schema", True, figures=figures)
    name = low[0]
    detail = f"{figures[name]:.0%} of what the store holds is known to the version ({name}), {min_known:.0%} is asked"
    return GateCheck(
        "schema", False, "schema", f"{detail}; least of all {worst_fields[name]}", figures, comparison=True
    )


def _known_shares(
    encoder: Encoder, raws: Mapping[str, Mapping[str, str]], vocabulary_V: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Return for each stored field the share of its values that training saw; 0 if no entity has the field."""
    slots = encoder.encode_many(list(raws.values()), list(raws), lambda _: None)
    absent = encoder.encode({}, None, lambda _: None)
    known_NS = np.isin(slots.keys, vocabulary_V)
    shares = {}
    for field, columns in encoder.layout:
        if field.entity == "context":
            continue
        if isinstance(field, Numeric):
            values_NS = slots.values[:, columns]
            given_NS = np.isfinite(values_NS) & (values_NS != absent.values[columns])
            shares[field.name] = float(given_NS.any())
        else:
            keys_NS = slots.keys[:, columns]
            given_NS = (keys_NS != EMPTY_KEY) & (keys_NS != absent.keys[columns])
            given = int(given_NS.sum())
            shares[field.name] = float((known_NS[:, columns] & given_NS).sum() / given) if given else 0.0
    return shares
