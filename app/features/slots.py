"""Slots, their keys, and the canonical spelling of a category."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from app.errors import EncodingError

Keys = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]

EMPTY_KEY = 0
INT64_MAX = 2**63 - 1
WHOLE_FLOAT = re.compile(r"(-?[1-9][0-9]{0,17})\.0|-?0\.0")
"""Matches whole numbers as tables and other languages write them once a column holds a null."""
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


def canonical_text(value: object, field: str) -> str:
    """Spell a category: JSON `21` and `21.0`, and "21" and "21.0" from Redis or a CSV, are one category.

    Raises:
        EncodingError: the value is not a string, number or boolean, or not finite, or an integer beyond 64 bits.
    """
    if isinstance(value, str):
        match = WHOLE_FLOAT.fullmatch(value)
        return value if match is None else match[1] or "0"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if not -INT64_MAX - 1 <= value <= INT64_MAX:
            raise EncodingError(field, "an integer category must fit in 64 bits")
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EncodingError(field, "a category cannot be NaN or infinite")
        return str(int(value)) if value.is_integer() and abs(value) <= INT64_MAX else repr(value)
    raise EncodingError(field, f"expected a string, number or boolean, not {json_type(value)}")


def json_type(value: object) -> str:
    """Name a value's JSON type for an error message."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "an array"
    return type(value).__name__
