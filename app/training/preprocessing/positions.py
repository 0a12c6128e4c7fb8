"""Fields of the position: which table rows they have, and whether ranking can hold them where it is to.

Models with a first-order part learn from where a row was shown as an offset of its logit alone: for what is clicked
where it is looked at, the chance of being looked at is a factor. An embedding learns of an item at a place where it was
hardly ever shown what noise says, and that is what ranking would ask for (docs/adr/0037).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from app.errors import ConfigError
from app.features.encoder import Encoder
from app.features.fields import Categorical, Numeric
from app.features.slot_layout import bucket_name
from app.models.preprocessing import Preprocessing


def position_rows(preprocessing: Preprocessing, rows_NT: Tensor) -> Tensor | None:
    """Return the table rows [P] of fields of the position, or None if the schema has no such field.

    Args:
        rows_NT: the table rows of all training rows.
    """
    fields = [field for field in preprocessing.schema.fields if field.is_position]
    if not fields:
        return None
    vectors = {
        name for field in fields for name in (field.name, bucket_name(field.name))
    } & preprocessing.vectors.keys()
    slots = [slot for name in vectors for slot in range(*preprocessing.vectors[name].indices(rows_NT.shape[1]))]
    unseen = [preprocessing.oov_row(field.name) for field in fields if not isinstance(field, Numeric)]
    rows = np.unique(rows_NT[:, slots].numpy())
    return torch.from_numpy(np.union1d(rows, unseen).astype(np.int64))


def check_held_positions(preprocessing: Preprocessing) -> None:
    """Raise ConfigError where a category that a position is held at has no table row: too few rows were shown there."""
    vocabulary_V = preprocessing.vocabulary_V.numpy()
    encoder = Encoder(preprocessing.schema, "user")
    held = encoder.encode({})
    for field, slots in encoder.layout:
        if field.is_position and isinstance(field, Categorical) and not np.isin(held.keys[slots], vocabulary_V).all():
            raise ConfigError(
                f"{field.name} is held at {field.serve_as!r} when ranking, and hardly any training row has that "
                f"{field.raw_name}: positions may begin at another number; change its serve_as"
            )
