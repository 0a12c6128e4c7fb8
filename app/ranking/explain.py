"""Why an item got its score: what each field adds, found by taking it away.

The effect of a field is the change of the logit when the field is made missing and everything else stays, which holds
for any model, crosses and deep part included. Effects need not add up to the logit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from app.features.encoder import Encoder
from app.features.slots import Slots
from app.registry.artifact.artifact import Artifact


class Explanation(NamedTuple):
    field: str
    effect: float
    """Of the field on the calibrated logit: above 0, the field raised the score."""


def explain(artifact: Artifact, user: Slots, item: Slots) -> list[Explanation]:
    """Effects of all fields that had a value, strongest first, for one user and one item (slots [S])."""
    users, user_fields = _without_each(artifact.user_encoder, user)
    items, item_fields = _without_each(artifact.item_encoder, item)
    # One batch of pairs: whole, each user field missing, each item field missing.
    changed_users = Slots(
        np.concatenate([user.keys[None], users.keys, np.repeat(user.keys[None], len(item_fields), 0)]),
        np.concatenate([user.values[None], users.values, np.repeat(user.values[None], len(item_fields), 0)]),
    )
    changed_items = Slots(
        np.concatenate([np.repeat(item.keys[None], 1 + len(user_fields), 0), items.keys]),
        np.concatenate([np.repeat(item.values[None], 1 + len(user_fields), 0), items.values]),
    )
    logits = torch.logit(artifact.score_pairs(changed_users, changed_items).double(), eps=1e-12)
    effects = (logits[0] - logits[1:]).tolist()
    found = [Explanation(name, effect) for name, effect in zip([*user_fields, *item_fields], effects, strict=True)]
    return sorted(found, key=lambda explanation: -abs(explanation.effect))


def _without_each(encoder: Encoder, slots: Slots) -> tuple[Slots, list[str]]:
    """Copies [F, S] of the slots, each with one field missing, and the names of those fields."""
    copies, names = [], []
    for name in encoder.raw_names:
        copy = encoder.without(slots, name)
        if not np.array_equal(copy.keys, slots.keys) or not np.array_equal(copy.values, slots.values, equal_nan=True):
            copies.append(copy)
            names.append(name)
    keys = np.array([copy.keys for copy in copies], np.int64).reshape(-1, len(slots.keys))
    values = np.array([copy.values for copy in copies], np.float32).reshape(-1, len(slots.keys))
    return Slots(keys, values), names
