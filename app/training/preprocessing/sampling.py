"""Some rows at random: what a report or a baseline looks at where there are more than it needs or could hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from app.features.slots import Slots
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows


def sample(rows: ExpandedRows, seed: int, most: int) -> ExpandedRows:
    """All rows, or `most` of them at random."""
    if len(rows.labels_N) <= most:
        return rows
    chosen = torch.from_numpy(np.sort(np.random.default_rng(seed).choice(len(rows.labels_N), most, replace=False)))
    return ExpandedRows(*(tensor[chosen] for tensor in rows))


def sampled(encoded: EncodedRows, rows: ExpandedRows, seed: int, most: int) -> tuple[EncodedRows, ExpandedRows]:
    """Both as they are, or the same `most` rows of both."""
    if len(encoded.labels_N) <= most:
        return encoded, rows
    chosen = np.sort(np.random.default_rng(seed).choice(len(encoded.labels_N), most, replace=False))
    return taken(encoded, chosen), ExpandedRows(*(tensor[torch.from_numpy(chosen)] for tensor in rows))


def taken(encoded: EncodedRows, index: npt.NDArray[np.int64] | slice) -> EncodedRows:
    """The slots and labels of some rows."""
    user, item = (Slots(slots.keys[index], slots.values[index]) for slots in (encoded.user, encoded.item))
    return encoded._replace(user=user, item=item, labels_N=encoded.labels_N[index])
