"""Take some rows at random, for reports and baselines that need no more or could hold no more."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from app.features.slots import Slots
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows


def sample(rows: ExpandedRows, seed: int, max_rows: int) -> ExpandedRows:
    """Return all rows, or `max_rows` of them at random, in their order."""
    if len(rows.labels_N) <= max_rows:
        return rows
    chosen = torch.from_numpy(np.sort(np.random.default_rng(seed).choice(len(rows.labels_N), max_rows, replace=False)))
    return rows.take(chosen)


def sample_both(encoded: EncodedRows, rows: ExpandedRows, seed: int, max_rows: int) -> tuple[EncodedRows, ExpandedRows]:
    """Return both as they are, or the same `max_rows` rows of both."""
    if len(encoded.labels_N) <= max_rows:
        return encoded, rows
    chosen = np.sort(np.random.default_rng(seed).choice(len(encoded.labels_N), max_rows, replace=False))
    return take_rows(encoded, chosen), rows.take(torch.from_numpy(chosen))


def take_rows(encoded: EncodedRows, index: npt.NDArray[np.int64] | slice) -> EncodedRows:
    """Return the slots and labels of some rows."""
    user, item = (Slots(slots.keys[index], slots.values[index]) for slots in (encoded.user, encoded.item))
    weights = encoded.weights and encoded.weights.take(index)
    return encoded._replace(user=user, item=item, labels_N=encoded.labels_N[index], weights=weights)
