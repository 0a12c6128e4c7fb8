"""A version as requests use it: user states made one by one, candidates ranked by their rows among item states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from app.features.encoder import Encoder
from app.features.item_index import Rows
from app.features.slots import Slots
from app.registry.artifact.artifact import Artifact

Entities = list[tuple[str, Mapping[str, Any]]]
"""Ids and raw features."""
Scores = npt.NDArray[np.float64]


class ServedVersion:
    """An artifact with users and with the states of some items, which take the place of the item cache."""

    def __init__(self, artifact: Artifact, users: Entities, items: Entities) -> None:
        self.version = artifact.version
        self._artifact = artifact
        self._user_slots = [Slots(*row) for row in zip(*_encode(artifact.user_encoder, users), strict=True)]
        self._item_slots = _encode(artifact.item_encoder, items)
        self._states_ND = artifact.encode_items(self._item_slots)

    @property
    def item_count(self) -> int:
        """The number of items."""
        return len(self._states_ND)

    def scores(self) -> Scores:
        """Return the probabilities of every user with every item, [U, N]."""
        row_N = np.arange(self.item_count)
        scores_UN = np.empty((len(self._user_slots), len(row_N)))
        for score_N, user in zip(scores_UN, self._user_slots, strict=True):
            ranked_N, position_N = self._rank(user, row_N)
            score_N[position_N] = ranked_N
        return scores_UN

    def rank(self, row_N: Rows) -> None:
        """Rank the items in these rows for the first user, as a request does once features are slots."""
        self._rank(self._user_slots[0], row_N)

    def item_slots(self, row_N: Rows) -> Slots:
        """Return the slots [N, S] of the items in these rows."""
        return Slots(self._item_slots.keys[row_N], self._item_slots.values[row_N])

    def encode_items(self, slots: Slots) -> None:
        """Encode items, as the item cache does."""
        self._artifact.encode_items(slots)

    def _rank(self, user: Slots, row_N: Rows) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        with torch.inference_mode():
            return self._artifact.ranked(self._artifact.encode_user(user), self._states_ND, row_N)


def _encode(encoder: Encoder, entities: Entities) -> Slots:
    """Encode entities to slots [N, S]; values that no slot can hold become the default."""
    ids, raws = zip(*entities, strict=True)
    return encoder.encode_many(raws, ids, lambda _: None)
