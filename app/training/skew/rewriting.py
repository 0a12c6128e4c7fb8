"""`Rewriting` tries whether a value of a table, written in another way, is what was served."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import EncodingError
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
        served = Slots(self._served.keys[rows], self._served.values[rows])
        return are_same(served, Slots(slots.keys[None], slots.values[None]))

    def lengths(self, rows: Rows) -> list[int]:
        """Return to how many letters the texts of rows may have been cut, the most frequent number first."""
        lengths: dict[int, int] = {}
        for row, value in zip(rows.tolist(), self._raw[rows.tolist()].to_list(), strict=True):
            shorter = rewritten(lambda value: truncations(self._field, value), plain_value(value))
            for length, text in shorter.items() if isinstance(shorter, dict) else ():
                slots = self.encode(text)
                if slots is not None and self.is_served(np.array([row]), slots)[0]:
                    lengths[length] = lengths.get(length, 0) + 1
        return sorted(lengths, key=lambda length: -lengths[length])

    def explained(self, rows: Rows, rewrite: Rewrite) -> Flags:
        """Tell of which rows the value of the table, written in another way, is what was served."""
        values = self._raw[rows.tolist()].to_list()
        encoded: dict[str, Slots | None] = {}
        explained = np.zeros(len(rows), np.bool_)
        for place, value in enumerate(values):
            key = repr(value)
            if key not in encoded:
                other = rewritten(rewrite, plain_value(value))
                encoded[key] = None if other is None else self.encode(other)
            slots = encoded[key]
            if slots is not None:
                explained[place] = self.is_served(rows[place : place + 1], slots)[0]
        return explained


def plain_value(value: object) -> object:
    """Return a value of a table as JSON would have it: weighted lists are objects."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {pair["item"]: pair["weight"] for pair in value}
    return value
