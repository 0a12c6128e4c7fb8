"""`explain` says why an item got its score: what each field adds to it.

The effect of a field is how far the logit falls when the field is made missing and everything else stays. This works
for any model, crosses and deep part included; the effects need not add up to the logit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from app.features.encoder import Encoder
from app.features.slots import Slots
from app.registry.artifact.artifact import Artifact


class Explanation(NamedTuple):
    """The effect of one field on one item's score."""

    field: str
    effect: float
    """Change of the calibrated logit that is due to the field; above 0, the field raised the score."""


def explain(artifact: Artifact, user: Slots, item: Slots) -> list[Explanation]:
    """Return the effects of all fields that have a value, strongest first, for one user and one item (slots [S])."""
    users, user_fields = _without_each(artifact.user_encoder, user)
    items, item_fields = _without_each(artifact.item_encoder, item)
    # One batch of pairs: complete, then without each user field, then without each item field.
    users_P = Slots(
        np.concatenate([user.keys[None], users.keys, np.repeat(user.keys[None], len(item_fields), 0)]),
        np.concatenate([user.values[None], users.values, np.repeat(user.values[None], len(item_fields), 0)]),
    )
    items_P = Slots(
        np.concatenate([np.repeat(item.keys[None], 1 + len(user_fields), 0), items.keys]),
        np.concatenate([np.repeat(item.values[None], 1 + len(user_fields), 0), items.values]),
    )
    logits = torch.logit(artifact.score_pairs(users_P, items_P).double(), eps=1e-12)
    effects = (logits[0] - logits[1:]).tolist()
    explanations = [Explanation(*effect) for effect in zip([*user_fields, *item_fields], effects, strict=True)]
    return sorted(explanations, key=lambda explanation: -abs(explanation.effect))


def _without_each(encoder: Encoder, slots: Slots) -> tuple[Slots, list[str]]:
    """Return copies [F, S] of the slots, each with one field missing, and the names of those fields."""
    copies, names = [], []
    for name in encoder.raw_names:
        copy = encoder.without(slots, name)
        if not np.array_equal(copy.keys, slots.keys) or not np.array_equal(copy.values, slots.values, equal_nan=True):
            copies.append(copy)
            names.append(name)
    keys = np.array([copy.keys for copy in copies], np.int64).reshape(-1, len(slots.keys))
    values = np.array([copy.values for copy in copies], np.float32).reshape(-1, len(slots.keys))
    return Slots(keys, values), names
