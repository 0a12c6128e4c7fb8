"""Compute a digest of encoded rows, by which two sets of rows are told apart."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from app.training.preprocessing.encode import EncodedRows

CHUNK_ROWS = 65_536


def rows_digest(encoded: EncodedRows) -> str:
    """Return the SHA-256 of slots, labels and weights in order, in hex.

    The same rows under one schema have one, in any file.
    """
    sha = hashlib.sha256()
    arrays: list[npt.NDArray[Any]] = [*encoded.user, *encoded.item, encoded.labels_N]
    if encoded.weights is not None:
        arrays += [encoded.weights.training_N, encoded.weights.evaluation_N]
    for start in range(0, len(encoded.labels_N), CHUNK_ROWS):
        for array in arrays:
            sha.update(np.ascontiguousarray(array[start : start + CHUNK_ROWS]).tobytes())
    return sha.hexdigest()
