"""`NumericEncoder`: encodes one number to one slot, a value or a whole column at a time."""

from __future__ import annotations

import math

import numpy as np

from app.errors import EncodingError
from app.features.columns import Column
from app.features.fields import MissingWords, Numeric
from app.features.slots import NUMERIC_MARK, FieldSlots, Slots, slot_key
from app.features.values import FLOAT32_MAX, canonical_text, number_of


class NumericEncoder:
    """Encodes one number to one slot: the field's fixed key, with the raw number as value, NaN if missing.

    Adding zero makes minus zero zero: some forms of a number have no sign for it.
    """

    def __init__(self, field: Numeric, missing: MissingWords) -> None:
        self.name = field.name
        self._words = frozenset(canonical_text(word, field.name) for word in missing)
        self._missing_numbers = np.array([number for word in missing if (number := _as_number(word)) is not None])
        self._keys = (slot_key(field.name + NUMERIC_MARK),)
        self._missing: FieldSlots = (self._keys, (math.nan,))
        self.absent: FieldSlots = self._missing
        """Slots of an empty value: those of the declared default or, without one, the "missing" slots."""

    def encode(self, value: object) -> FieldSlots:
        """Encode a number or its text. Raises EncodingError if it is no number, or beyond 32-bit floats."""
        if value.__class__ is float or value.__class__ is int or (value.__class__ is str and "_" not in value):
            try:  # what nearly all are, without a call
                number = float(value)
            except (ValueError, OverflowError):
                number = math.nan
            if -FLOAT32_MAX <= number <= FLOAT32_MAX and not self._words:
                return self._keys, (number + 0.0,)
        number = self._number(value)
        return self.absent if number != number else (self._keys, (number,))

    def encode_column(self, column: Column, absent: FieldSlots) -> Slots | None:
        """Encode a column to slots [N, 1], or return None if it must be encoded value by value."""
        numbers_N = column.numbers(self._number)
        if numbers_N is None:
            return None
        missing_N = np.isnan(numbers_N)
        if len(self._missing_numbers):
            missing_N |= np.isin(numbers_N, self._missing_numbers)
        if not (missing_N | (np.abs(numbers_N) <= FLOAT32_MAX)).all():
            return None
        values_N = (np.where(missing_N, absent[1][0], numbers_N) + 0.0).astype(np.float32)
        return Slots(np.full((len(numbers_N), 1), absent[0][0], np.int64), values_N[:, None])

    def _number(self, value: object) -> float:
        """Read a number, NaN where it is missing. Raises EncodingError if it is none."""
        if value.__class__ is str and value.strip() in self._words:
            return math.nan
        number = number_of(value, self.name)
        return math.nan if number in self._missing_numbers else number

    def missing(self) -> FieldSlots:
        """Return the slots that stand for a missing value, whatever the default."""
        return self._missing


def _as_number(word: object) -> float | None:
    try:
        number = number_of(word, "missing")
    except EncodingError:
        return None
    return None if number != number else number
