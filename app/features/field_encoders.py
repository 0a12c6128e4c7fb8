"""Encode one raw field to its slots: a value at a time for a request, a whole column at a time for a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from app.errors import EncodingError
from app.features.columns import Column, Lists
from app.features.fields import AnyField, Categorical, MultiCategorical, Numeric
from app.features.slots import (
    EMPTY_KEY,
    MISSING_MARK,
    NUMERIC_MARK,
    VALUE_MARK,
    FieldSlots,
    Keys,
    Slots,
    slot_key,
)
from app.features.values import FLOAT32_MAX, INT64_MAX, READINGS, RESPELLED, Reading, canonical_text, number_of

Words = Sequence[str | int | float]


class CategoricalEncoder:
    """Encodes one category to one slot: the hash of its space and canonical text, with value 1.0."""

    def __init__(self, field: Categorical | MultiCategorical, missing: Words = (), reading: Reading = 2) -> None:
        self.name = field.name
        self._spell = READINGS[reading]
        self._words = frozenset(self._spell(word, field.name) for word in missing)
        self._prefix = (field.space_name + VALUE_MARK).encode()
        self._missing: FieldSlots = ((slot_key(field.name + MISSING_MARK),), (1.0,))
        self.absent: FieldSlots = self._missing
        """Slots of an empty value: those of the declared default or, without one, the "missing" slots."""

    def key(self, value: object) -> int:
        """Hash one category. Raises EncodingError if it is not a string, number or boolean."""
        # Nearly every text is spelled as it is, which is found without a call: the hottest line of the encoder.
        text: str
        if value.__class__ is str and "." not in value and "+" not in value and value not in RESPELLED:
            text = value
        else:
            text = self._spell(value, self.name)
        try:
            digest: int = xxh3_64_intdigest(self._prefix + text.encode())
        except UnicodeEncodeError:
            raise EncodingError(self.name, "text must be valid Unicode, without lone surrogates") from None
        return digest if digest <= INT64_MAX else digest - 2**64

    def keys(self, values: Sequence[object]) -> Keys:
        """Hash D categories to keys [D], 0 for missing ones. Raises EncodingError if one fits no slot."""
        spell, name, words = self._spell, self.name, self._words
        texts = [
            value  # as in `key`
            if value.__class__ is str and "." not in value and "+" not in value and value not in RESPELLED
            else ("" if value is None else spell(value, name))
            for value in values
        ]
        if words:
            texts = ["" if text in words else text for text in texts]
        try:
            blobs = map(str.encode, map(self._prefix.decode().__add__, texts))
            keys_D = np.frombuffer(b"".join(map(xxh3_64_digest, blobs)), ">i8").astype(np.int64)
        except UnicodeEncodeError:
            raise EncodingError(self.name, "text must be valid Unicode, without lone surrogates") from None
        return np.where(np.fromiter(map(bool, texts), np.bool_, len(texts)), keys_D, EMPTY_KEY)

    def encode(self, value: object) -> FieldSlots:
        """Encode one value that is neither None nor empty. Raises EncodingError if it fits no slot."""
        if self._words and self._is_missing(value):
            return self.absent
        return (self.key(value),), (1.0,)

    def encode_column(self, column: Column, absent: FieldSlots) -> Slots | None:
        """Encode a column to slots [N, width], or return None if it must be encoded value by value.

        Args:
            absent: the slots of a missing value.
        """
        values, codes_N = column.distinct()
        try:
            keys_D = self.keys(values)
        except EncodingError:
            return None
        keys_D[keys_D == EMPTY_KEY] = absent[0][0]
        return Slots(keys_D[codes_N, None], np.ones((len(codes_N), 1), np.float32))

    def missing(self) -> FieldSlots:
        """Return the slots that stand for a missing value, whatever the default."""
        return self._missing

    def _is_missing(self, value: object) -> bool:
        if value is None or value == "" or not self._words:
            return value is None or value == ""
        try:
            return self._spell(value, self.name) in self._words
        except EncodingError:
            return False  # which is said where the value is needed


class MultiCategoricalEncoder(CategoricalEncoder):
    """Encodes up to `max_length` categories to a slot each, with weights that sum to 1 (mean) or are kept (sum)."""

    def __init__(self, field: MultiCategorical, missing: Words, reading: Reading) -> None:
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
            slots.values[row, slot] = weights[fits]
        else:
            heaviest_N = np.zeros(rows)
            np.maximum.at(heaviest_N, row, weights[fits])
            count_N = np.where(heaviest_N > 0, count_N, 0)  # no weight at all is no value
            shares = weights[fits] / np.where(heaviest_N > 0, heaviest_N, 1.0)[row]
            total_N = np.bincount(row, shares, minlength=rows)
            slots.values[row, slot] = shares / np.where(heaviest_N > 0, total_N, 1.0)[row]
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
                parsed: object = msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
                raise EncodingError(self.name, "text that begins with [ or { must be JSON") from error
            return parsed
        if self._field.separator is not None:
            return text.split(self._field.separator)
        return [text]

    def _weight(self, weight: object) -> float:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) <= FLOAT32_MAX:
            raise EncodingError(self.name, "a weight must be a finite number")
        return float(weight)


class NumericEncoder:
    """Encodes one number to one slot: the field's fixed key, with the raw number as value, NaN if missing."""

    def __init__(self, field: Numeric, missing: Words) -> None:
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
                return self._keys, (number,)
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
        values_N = np.where(missing_N, absent[1][0], numbers_N).astype(np.float32)
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


FieldEncoder = CategoricalEncoder | NumericEncoder


def field_encoder(field: AnyField, missing: Words = (), reading: Reading = 2) -> FieldEncoder:
    """Return the encoder of a field.

    Args:
        missing: values that count as missing, beside the field's own.
        reading: how categories are spelled.
    """
    words = (*missing, *field.missing)
    if isinstance(field, MultiCategorical):
        return MultiCategoricalEncoder(field, words, reading)
    if isinstance(field, Categorical):
        return CategoricalEncoder(field, words, reading)
    return NumericEncoder(field, words)


def _as_number(word: object) -> float | None:
    try:
        number = number_of(word, "missing")
    except EncodingError:
        return None
    return None if number != number else number
