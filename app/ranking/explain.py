"""`Explainer` says why an item got its score: what each field adds to it.

The effect of a field is how far the logit falls when the field is made missing and everything else stays. This works
for any model, crosses and deep part included; the effects need not add up to the logit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from app.features.slots import Slots
from app.registry.artifact.artifact import Artifact


class Explanation(NamedTuple):
    """The effect of one field on one item's score."""

    field: str
    effect: float
    """Change of the calibrated logit that is due to the field; above 0, the field raised the score."""


class Explainer:
    """Explains the scores of items for one user."""

    def __init__(self, artifact: Artifact, user: Slots) -> None:
        """Take the user's slots [S]."""
        self._artifact = artifact
        self._user = user
        self._users, self._user_fields = artifact.user_encoder.without_each(user)

    def explain(self, item: Slots) -> list[Explanation]:
        """Return the effects of all fields that have a value, strongest first, on the score of an item (slots [S])."""
        user, users, user_fields = self._user, self._users, self._user_fields
        items, item_fields = self._artifact.item_encoder.without_each(item)
        # One batch of pairs: complete, then without each user field, then without each item field.
        users_P = Slots(
            np.concatenate([user.keys[None], users.keys, np.repeat(user.keys[None], len(item_fields), 0)]),
            np.concatenate([user.values[None], users.values, np.repeat(user.values[None], len(item_fields), 0)]),
        )
        items_P = Slots(
            np.concatenate([np.repeat(item.keys[None], 1 + len(user_fields), 0), items.keys]),
            np.concatenate([np.repeat(item.values[None], 1 + len(user_fields), 0), items.values]),
        )
        logits = torch.logit(self._artifact.score_pairs(users_P, items_P).double(), eps=1e-12)
        effects = (logits[0] - logits[1:]).tolist()
        explanations = [Explanation(*effect) for effect in zip([*user_fields, *item_fields], effects, strict=True)]
        return sorted(explanations, key=lambda explanation: -abs(explanation.effect))
