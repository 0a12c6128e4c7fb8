"""Slots and their keys."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from app.features.values import INT64_MAX

Keys = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]

EMPTY_KEY = 0
# One byte that no schema name can hold keeps `space` and `value` apart; each kind of key has a byte of its own.
VALUE_MARK, MISSING_MARK, NUMERIC_MARK = "\x1f", "\x1e", "\x1d"


class Slots(NamedTuple):
    """The slots of one entity, `keys int64 [S]` and `values float32 [S]`, or of N entities, `[N, S]`."""

    keys: Keys
    values: Values


FieldSlots = tuple[tuple[int, ...], tuple[float, ...]]
"""Keys and values of one field's slots."""


def slot_key(text: str) -> int:
    """Return the signed 64-bit xxh3 of UTF-8 text. Raises UnicodeEncodeError if it holds a lone surrogate."""
    digest: int = xxh3_64_intdigest(text.encode())
    return digest if digest <= INT64_MAX else digest - 2**64
