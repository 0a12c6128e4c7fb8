"""What the data of a run was: missing and unseen values by field, and a digest that tells two sets of rows apart."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from app.features.encoder import Encoder
from app.features.fields import SIDES, Numeric
from app.features.schema import FeatureSchema
from app.features.slots import EMPTY_KEY
from app.models.side_input import Preprocessing
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.sampling import taken

MAX_ROWS = 100_000
"""Rows of a part that shares are taken from: their standard error is then 0.16 % at most."""
DIGEST_ROWS = 65_536


def field_summaries(preprocessing: Preprocessing, parts: dict[str, EncodedRows], seed: int = 0) -> list[dict[str, Any]]:
    """One entry a field: `missing`, the share of rows by part without a value (or with the default that stands for
    one), and `unseen`, the share of given values that get no row of the table: new since training, or too rare there.
    Numbers have a mean and a deviation instead. Parts of more than `MAX_ROWS` rows are sampled.
    """
    schema, vocabulary_V = preprocessing.schema, preprocessing.vocabulary_V.numpy()
    sampled = {part: _sample(encoded, seed) for part, encoded in parts.items()}
    summaries = []
    for side in SIDES:
        absent = Encoder(schema, side).encode({}, None, _ignore)
        for field, place in schema.layout(side):
            found: dict[str, Any] = {"name": field.name, "entity": field.entity, "type": field.type}
            missing, unseen = {}, {}
            for part, encoded in sampled.items():
                slots = encoded.side(side)
                if isinstance(field, Numeric):
                    given_N = ~_same(slots.values[:, place.start], absent.values[place.start])
                    missing[part] = float(1 - given_N.mean())
                    continue
                keys_NS = slots.keys[:, place]
                missing[part] = float((keys_NS[:, 0] == absent.keys[place.start]).mean())
                given = keys_NS[(keys_NS != EMPTY_KEY) & (keys_NS != absent.keys[place.start])]
                unseen[part] = float(1 - _known(vocabulary_V, given).mean()) if len(given) else 0.0
                if part == "train":
                    distinct = np.unique(given)
                    found |= {"distinct": len(distinct), "in_table": int(_known(vocabulary_V, distinct).sum())}
            if isinstance(field, Numeric):
                learned = preprocessing.numerics[field.name]
                found |= {"mean": learned.mean, "deviation": learned.deviation, "buckets": len(learned.borders) + 1}
            summaries.append({**found, "missing": missing, "unseen": unseen})
    return summaries


def digest(encoded: EncodedRows) -> str:
    """Hex SHA-256 of slots and labels in order: the same for the same rows under the same schema, whatever file."""
    sha = hashlib.sha256()
    arrays: list[npt.NDArray[Any]] = [*encoded.user, *encoded.item, encoded.labels_N]
    for start in range(0, len(encoded.labels_N), DIGEST_ROWS):
        for array in arrays:
            sha.update(np.ascontiguousarray(array[start : start + DIGEST_ROWS]).tobytes())
    return sha.hexdigest()


def user_groups(schema: FeatureSchema, encoded: EncodedRows) -> npt.NDArray[np.int64] | None:
    """Whose row each is, by the key of the user's id [N]; None where the schema has no such field."""
    slot = schema.layout("user").id_slot
    return None if slot is None else encoded.user.keys[:, slot]


def _sample(encoded: EncodedRows, seed: int) -> EncodedRows:
    rows = len(encoded.labels_N)
    if rows <= MAX_ROWS:
        return encoded
    return taken(encoded, np.sort(np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False)))


def _ignore(_: str) -> None:
    """Of an entity without features nothing can be invalid."""


def _same(values_N: npt.NDArray[np.float32], absent: np.float32) -> npt.NDArray[np.bool_]:
    return np.isnan(values_N) if np.isnan(absent) else np.isnan(values_N) | (values_N == absent)


def _known(vocabulary_V: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    place = np.searchsorted(vocabulary_V, keys).clip(max=len(vocabulary_V) - 1)
    return np.asarray(vocabulary_V[place] == keys)
