"""Fields of the position: which table rows they have, and whether ranking can hold them where it is to.

Models with a first-order part learn a categorical position as an offset of the logit: for what is clicked where it is
looked at, the chance of being looked at is a factor. An embedding learns of an item at a place where it was hardly ever
shown what noise says, and that is what ranking would ask for (docs/adr/0037).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from app.errors import ConfigError
from app.features.encoder import Encoder
from app.features.fields import Categorical
from app.models.preprocessing import Preprocessing
from app.training.preprocessing.row_chunks import row_chunks

CHUNK_ROWS = 1 << 20


def position_rows(preprocessing: Preprocessing, rows_NT: Tensor) -> Tensor | None:
    """Return the table rows [P] of categorical positions, or None if the schema has no such field.

    Those are the rows of places that occur among training rows, of the one that ranking holds, and of unseen ones.

    Args:
        rows_NT: the table rows of the training rows.
    """
    held = _held(preprocessing)
    if not held:
        return None
    is_position_R = np.zeros(preprocessing.rows, np.bool_)
    slots = [preprocessing.vectors[field.name].start for field, _ in held]
    for rows in row_chunks(slice(0, len(rows_NT)), CHUNK_ROWS):
        is_position_R[rows_NT[rows][:, slots].numpy()] = True
    is_position_R[[preprocessing.oov_row(field.name) for field, _ in held]] = True
    is_held_V = np.isin(preprocessing.vocabulary_V.numpy(), [key for _, key in held])
    is_position_R[preprocessing.oov_rows + np.flatnonzero(is_held_V)] = True
    return torch.from_numpy(np.flatnonzero(is_position_R))


def check_held_positions(preprocessing: Preprocessing) -> None:
    """Raise ConfigError where a category that a position is held at has no table row: too few rows were shown there."""
    for field, key in _held(preprocessing):
        if key not in preprocessing.vocabulary_V:
            raise ConfigError(
                f"{field.name} is held at {field.serve_as!r} when ranking, and hardly any training row has that "
                f"{field.raw_name}: positions may begin at another number; change its serve_as"
            )


def _held(preprocessing: Preprocessing) -> list[tuple[Categorical, int]]:
    """Return the categorical positions, each with the key that ranking holds it at."""
    encoder = Encoder(preprocessing.schema, "user")
    keys_S = encoder.encode({}).keys
    return [
        (field, int(keys_S[slots.start]))
        for field, slots in encoder.layout
        if field.is_position and isinstance(field, Categorical)
    ]
