"""Summarise the data of a run by field: how many values are missing or unseen, and which statistics were learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from app.features.encoder import Encoder
from app.features.fields import SIDES, Numeric
from app.features.slots import EMPTY_KEY
from app.models.preprocessing import Preprocessing
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.sampling import take_rows

MAX_ROWS = 100_000
"""Shares are measured on at most this many rows of a part, drawn at random: their standard error is below 0.16 %."""


def field_summaries(
    preprocessing: Preprocessing, parts: dict[str, EncodedRows], seed: int = 0, max_rows: int = MAX_ROWS
) -> list[dict[str, Any]]:
    """Return one entry a field, in declared order, user side first.

    By part, `missing` is the share of rows without a value (or with the default that stands for one), and `unseen` the
    share of given values that have no table row: new since training, or too rare there. Numbers have a mean and a
    deviation instead of `unseen`.

    Args:
        max_rows: the number of rows of a part to measure on, drawn at random if there are more.
    """
    schema, vocabulary_V = preprocessing.schema, preprocessing.vocabulary_V.numpy()
    sampled = {part: _sample(encoded, seed, max_rows) for part, encoded in parts.items()}
    summaries = []
    for side in SIDES:
        absent = Encoder(schema, side, logged=True).encode({}, None, _ignore)
        for field, field_slots in schema.layout(side):
            summary: dict[str, Any] = {"name": field.name, "entity": field.entity, "type": field.type}
            missing, unseen = {}, {}
            for part, encoded in sampled.items():
                slots = encoded.side(side)
                if isinstance(field, Numeric):
                    given_N = ~_is_missing(slots.values[:, field_slots.start], absent.values[field_slots.start])
                    missing[part] = float(1 - given_N.mean())
                    continue
                keys_NS = slots.keys[:, field_slots]
                missing[part] = float((keys_NS[:, 0] == absent.keys[field_slots.start]).mean())
                given = keys_NS[(keys_NS != EMPTY_KEY) & (keys_NS != absent.keys[field_slots.start])]
                unseen[part] = float(1 - _in_vocabulary(vocabulary_V, given).mean()) if len(given) else 0.0
                if part == "train":
                    distinct = np.unique(given)
                    summary |= {
                        "distinct": len(distinct),
                        "in_table": int(_in_vocabulary(vocabulary_V, distinct).sum()),
                    }
            if isinstance(field, Numeric):
                learned = preprocessing.numerics[field.name]
                summary |= {"mean": learned.mean, "deviation": learned.deviation, "buckets": len(learned.borders) + 1}
            summaries.append({**summary, "missing": missing, "unseen": unseen})
    return summaries


def _sample(encoded: EncodedRows, seed: int, max_rows: int) -> EncodedRows:
    rows = len(encoded.labels_N)
    if rows <= max_rows:
        return encoded
    return take_rows(encoded, np.sort(np.random.default_rng(seed).choice(rows, max_rows, replace=False)))


def _ignore(_: str) -> None:
    """Ignore invalid fields: an entity without features has none."""


def _is_missing(values_N: npt.NDArray[np.float32], absent: np.float32) -> npt.NDArray[np.bool_]:
    return np.isnan(values_N) if np.isnan(absent) else np.isnan(values_N) | (values_N == absent)


def _in_vocabulary(vocabulary_V: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    index = np.searchsorted(vocabulary_V, keys).clip(max=len(vocabulary_V) - 1)
    return np.asarray(vocabulary_V[index] == keys)
