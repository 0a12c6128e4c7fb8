"""Check that training rows were shown at the position that ranking holds: what was not seen cannot be asked for."""

from __future__ import annotations

import numpy as np

from app.errors import ConfigError
from app.features.encoder import Encoder
from app.features.fields import Categorical
from app.models.preprocessing import Preprocessing


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
