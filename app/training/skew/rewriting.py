"""`Rewriting` tries whether a value of a table, written in another way, is what was served."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import EncodingError
from app.features.columns import PythonColumn
from app.features.encoder import Encoder
from app.features.fields import AnyField
from app.features.schema import FeatureSchema
from app.features.slots import Slots
from app.training.skew.field_differences import Examples, Flags, are_same
from app.training.skew.spellings import Rewrite, rewritten, truncations

Rows = npt.NDArray[np.intp]


class Rewriting:
    """Encodes values of one field, and compares them with what was served."""

    def __init__(self, field: AnyField, schema: FeatureSchema, examples: Examples, raw: pl.Series) -> None:
        """
        Args:
            raw: what the table says in each of the examples, as it is written.
        """
        self._field, self._served, self._raw = field, examples.served, raw
        alone = FeatureSchema(fields=(field,), missing=schema.missing, reading=schema.reading)
        self._encoder = Encoder(alone, field.side)
        self.absent = self._encoder.encode({})
        """[W] of a missing value."""

    def encode(self, value: object) -> Slots | None:
        """Return the slots [W] of a value; None if it fits none."""
        try:
            return self._encoder.encode({self._field.raw_name: value}, value)
        except EncodingError:
            return None

    def is_served(self, rows: Rows, slots: Slots) -> Flags:
        """Tell of which rows these slots [W] are what was served."""
        return are_same(self._served_of(rows), Slots(slots.keys[None], slots.values[None]))

    def lengths(self, rows: Rows) -> list[int]:
        """Return to how many letters the texts of rows may have been cut, the most frequent number first."""
        lengths: dict[int, int] = {}
        for row, value in zip(rows.tolist(), self._raw[rows.tolist()].to_list(), strict=True):
            shorter = rewritten(lambda whole: truncations(self._field, whole), plain_value(value))
            for length, text in shorter.items() if isinstance(shorter, dict) else ():
                slots = self.encode(text)
                if slots is not None and self.is_served(np.array([row]), slots)[0]:
                    lengths[length] = lengths.get(length, 0) + 1
        return sorted(lengths, key=lambda length: -lengths[length])

    def explained(self, rows: Rows, rewrite: Rewrite) -> Flags:
        """Tell of which rows, one at least, the value of the table is what was served once it is written otherwise."""
        distinct = PythonColumn(self._raw[rows.tolist()].to_list()).distinct()
        slots_D = [self._encode_rewritten(value, rewrite) for value in distinct.values]
        is_encoded_D = np.array([slots is not None for slots in slots_D])
        keys_D = np.stack([(slots or self.absent).keys for slots in slots_D])
        values_D = np.stack([(slots or self.absent).values for slots in slots_D])
        codes_R = distinct.codes_N
        return is_encoded_D[codes_R] & are_same(self._served_of(rows), Slots(keys_D[codes_R], values_D[codes_R]))

    def _encode_rewritten(self, value: object, rewrite: Rewrite) -> Slots | None:
        other = rewritten(rewrite, plain_value(value))
        return None if other is None else self.encode(other)

    def _served_of(self, rows: Rows) -> Slots:
        return Slots(self._served.keys[rows], self._served.values[rows])


def plain_value(value: object) -> object:
    """Return a value of a table as JSON would have it: weighted lists are objects."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {pair["item"]: pair["weight"] for pair in value}
    return value
