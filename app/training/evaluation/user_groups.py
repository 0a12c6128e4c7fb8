"""Group rows by their user, for metrics within users."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.features.schema import FeatureSchema
from app.training.preprocessing.encode import EncodedRows


def user_groups(schema: FeatureSchema, encoded: EncodedRows) -> npt.NDArray[np.int64] | None:
    """Return the key of the user's id [N]; None where the schema has no such field."""
    slot = schema.layout("user").id_slot
    return None if slot is None else encoded.user.keys[:, slot]
