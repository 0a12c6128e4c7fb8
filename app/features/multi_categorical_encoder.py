"""`MultiCategoricalEncoder`: encodes several categories, weighted or not, a value or a whole column at a time."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from app.errors import EncodingError
from app.features.categorical_encoder import CategoricalEncoder
from app.features.columns import Column, Lists
from app.features.fields import MissingWords, MultiCategorical
from app.features.slots import EMPTY_KEY, FieldSlots, Keys, Slots
from app.features.values import FLOAT32_MAX, Reading

_Scalar = str | int | float | bool | None
_FLAT_JSON = msgspec.json.Decoder(list[_Scalar] | dict[str, _Scalar])
"""It stops at the first value that is nested, however deep that is."""


class MultiCategoricalEncoder(CategoricalEncoder):
    """Encodes up to `max_length` categories to a slot each, with weights that sum to 1 (mean) or are kept (sum).

    A weight of minus zero is zero, as a number is.
    """

    def __init__(self, field: MultiCategorical, missing: MissingWords, reading: Reading) -> None:
        super().__init__(field, missing, reading)
        self._field = field
        padding = field.max_length - 1
        self._missing = (
            (self._missing[0][0],) + (EMPTY_KEY,) * padding,
            (1.0,) + (0.0,) * padding,
        )
        self.absent = self._missing

    def encode(self, value: object) -> FieldSlots:
        """Encode a list, an object of weights, or the text of either. Raises EncodingError if it fits no slot."""
        pairs = [(item, weight) for item, weight in self._pairs(value) if not self._is_missing(item)]
        if len(pairs) > self._field.max_length:
            if self._field.weighted:  # heaviest first; sorted() is stable, so ties keep their order
                pairs = sorted(pairs, key=lambda pair: -abs(pair[1]))
            pairs = pairs[: self._field.max_length]
        if self._field.pooling == "mean":
            if any(weight < 0 for _, weight in pairs):
                raise EncodingError(self.name, "weights that are averaged cannot be negative")
            heaviest = max((weight for _, weight in pairs), default=0.0)
            # Divided by the heaviest first: the sum of weights near the float limit would overflow.
            total = 0.0
            for _, weight in pairs if heaviest else ():
                total += weight / heaviest  # one after the other, as `_lay_out` does; sum() of Python 3.12 does not
            pairs = [(item, weight / heaviest / total) for item, weight in pairs] if total else []
        if not pairs:
            return self.absent
        padding = self._field.max_length - len(pairs)
        keys = tuple(self.key(item) for item, _ in pairs) + (EMPTY_KEY,) * padding
        return keys, tuple(weight for _, weight in pairs) + (0.0,) * padding

    def encode_column(self, column: Column, absent: FieldSlots) -> Slots | None:
        """Encode a column to slots [N, width], or return None if it must be encoded value by value."""
        lists = column.lists(self._field.separator)
        if lists is None or (lists.weights is not None and not self._are_valid(lists.weights)):
            return None
        try:
            keys_D = self.keys(lists.items.values)
        except EncodingError:
            return None
        return self._lay_out(lists, keys_D[lists.items.codes_N], absent)

    def _are_valid(self, weights: npt.NDArray[np.float64]) -> bool:
        least = 0.0 if self._field.pooling == "mean" else -FLOAT32_MAX
        return self._field.weighted and bool(((weights >= least) & (weights <= FLOAT32_MAX)).all())

    def _lay_out(self, lists: Lists, keys: Keys, absent: FieldSlots) -> Slots:
        """Lay items out in slots, as `encode` does: the heaviest `max_length` of each row, weights pooled.

        Args:
            keys: the key of each item, 0 for missing ones.
        """
        field, rows = self._field, len(lists.lengths_N)
        row, weights = np.repeat(np.arange(rows), lists.lengths_N), lists.weights
        present = keys != EMPTY_KEY
        if not present.all():
            row, keys, weights = row[present], keys[present], None if weights is None else weights[present]
        count_N = np.bincount(row, minlength=rows)
        if weights is not None and count_N.max(initial=0) > field.max_length:
            crowded = np.flatnonzero(count_N[row] > field.max_length)
            order = crowded[np.lexsort((-np.abs(weights[crowded]), row[crowded]))]  # stable, as `sorted` is
            weights = weights.copy()
            keys[crowded], weights[crowded] = keys[order], weights[order]
        slot = np.arange(len(row)) - (np.cumsum(count_N) - count_N)[row]
        fits = slot < field.max_length
        row, slot, keys = row[fits], slot[fits], keys[fits]
        shape = rows, field.max_length
        slots = Slots(np.zeros(shape, np.int64), np.zeros(shape, np.float32))
        slots.keys[row, slot] = keys
        if weights is None:
            used_N = np.maximum(count_N, 1).clip(max=field.max_length)
            slots.values[row, slot] = 1.0 if field.pooling == "sum" else (1.0 / used_N)[row]
        elif field.pooling == "sum":
            slots.values[row, slot] = weights[fits] + 0.0
        else:
            heaviest_N = np.zeros(rows)
            np.maximum.at(heaviest_N, row, weights[fits])
            count_N = np.where(heaviest_N > 0, count_N, 0)  # no weight at all is no value
            shares = weights[fits] / np.where(heaviest_N > 0, heaviest_N, 1.0)[row]
            total_N = np.bincount(row, shares, minlength=rows)
            slots.values[row, slot] = shares / np.where(heaviest_N > 0, total_N, 1.0)[row] + 0.0
        slots.keys[count_N == 0], slots.values[count_N == 0] = absent
        return slots

    def _pairs(self, value: object) -> list[tuple[object, float]]:
        if isinstance(value, str):
            value = self._parse(value)
        if isinstance(value, Mapping):
            if not self._field.weighted and any(weight is not None for weight in value.values()):
                raise EncodingError(self.name, "expected a list; weights need `weighted: true` in the schema")
            # A Parquet struct has every key in every row, null where it does not apply.
            return [(item, self._weight(weight)) for item, weight in value.items() if weight is not None]
        if isinstance(value, list | tuple):
            return [(item, 1.0) for item in value]
        return [(value, 1.0)]

    def _parse(self, text: str) -> object:
        if text[:1] in ("[", "{"):
            try:
                return _FLAT_JSON.decode(text)
            except (msgspec.DecodeError, UnicodeEncodeError) as error:
                message = "text that begins with [ or { must be JSON: an array of values, or an object of weights"
                raise EncodingError(self.name, message) from error
        if self._field.separator is not None:
            return text.split(self._field.separator)
        return [text]

    def _weight(self, weight: object) -> float:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) <= FLOAT32_MAX:
            raise EncodingError(self.name, "a weight must be a finite number")
        return weight + 0.0
