"""Raw features to slots: the one encoding that training, serving and the loader share.

A slot is a (key, value) pair, the (feature, value) pair of the CTR literature and the x_i of the FM formula. Every
field owns a fixed run of slots, so a side of the schema becomes `keys int64 [S]` and `values float32 [S]`:

    categorical        one slot   (xxh3_64(space, value), 1.0)
    multi_categorical  max_length slots, weights summing to 1 (mean) or kept (sum), the rest empty: (0, 0.0)
    numeric            one slot   (the field's fixed key, the raw number), NaN where missing
    missing            the field's own "missing" key with value 1.0, which training may learn or not

Nothing here is learned, so nothing here can differ between training and serving.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from app.errors import EncodingError, SchemaError
from app.features.columns import Column, Lists, Plain
from app.features.schema import FLOAT32_MAX, AnyField, Categorical, FeatureSchema, MultiCategorical, Numeric, Side

Keys = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]
Invalid = Callable[[str], None]

EMPTY_KEY = 0
INT64_MAX = 2**63 - 1
WHOLE_FLOAT = re.compile(r"(-?[1-9][0-9]{0,17})\.0|-?0\.0")
"""How tables and other languages write a whole number once a column holds a null."""
# One byte that no schema name can hold keeps `space` and `value` apart; each kind of key has its own.
VALUE_MARK, MISSING_MARK, NUMERIC_MARK = "\x1f", "\x1e", "\x1d"


class Slots(NamedTuple):
    """`keys int64 [S]` and `values float32 [S]` of one entity, or `[N, S]` of N."""

    keys: Keys
    values: Values


FieldSlots = tuple[tuple[int, ...], tuple[float, ...]]


def slot_key(text: str) -> int:
    """Signed 64-bit xxh3 of UTF-8 text. Raises UnicodeEncodeError for a lone surrogate."""
    digest: int = xxh3_64_intdigest(text.encode())
    return digest if digest <= INT64_MAX else digest - 2**64


def canonical_text(value: object, field: str) -> str:
    """One spelling per value: JSON `21` and `21.0`, and "21" and "21.0" from Redis or a CSV, are one category.

    Raises:
        EncodingError: not a string, number or boolean; not finite; an integer beyond 64 bits.
    """
    if isinstance(value, str):
        whole = WHOLE_FLOAT.fullmatch(value)
        return value if whole is None else whole[1] or "0"
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
    raise EncodingError(field, f"expected a string, number or boolean, not {_kind(value)}")


class CategoricalEncoder:
    def __init__(self, field: Categorical | MultiCategorical) -> None:
        self.name = field.name
        self._prefix = (field.vocabulary + VALUE_MARK).encode()
        self._missing: FieldSlots = ((slot_key(field.name + MISSING_MARK),), (1.0,))
        self.absent: FieldSlots = self._missing
        """What a value that turns out to be none becomes; the encoded default where one is declared."""

    def key(self, value: object) -> int:
        # The test for ".0" spares nearly every text the regular expression: this is the hottest line of the encoder.
        text: str = value if value.__class__ is str and value[-2:] != ".0" else canonical_text(value, self.name)
        try:
            digest: int = xxh3_64_intdigest(self._prefix + text.encode())
        except UnicodeEncodeError:
            raise EncodingError(self.name, "text must be valid Unicode, without lone surrogates") from None
        return digest if digest <= INT64_MAX else digest - 2**64

    def keys(self, values: Sequence[Any]) -> Keys:
        """The keys [D] of many values, 0 for missing ones. Raises EncodingError."""
        texts = [
            value if value.__class__ is str and value[-2:] != ".0" else "" if value is None else self._text(value)
            for value in values
        ]
        try:
            blobs = map(str.encode, map(self._prefix.decode().__add__, texts))
            keys_D = np.frombuffer(b"".join(map(xxh3_64_digest, blobs)), ">i8").astype(np.int64)
        except UnicodeEncodeError:
            raise EncodingError(self.name, "text must be valid Unicode, without lone surrogates") from None
        return np.where(np.fromiter(map(bool, texts), np.bool_, len(texts)), keys_D, EMPTY_KEY)

    def _text(self, value: object) -> str:
        return canonical_text(value, self.name)

    def encode(self, value: object) -> FieldSlots:
        return (self.key(value),), (1.0,)

    def encode_column(self, column: Column, absent: FieldSlots) -> Slots | None:
        """The slots [N, width] of a whole column, or None where it must be encoded value by value."""
        values, codes_N = column.distinct()
        try:
            keys_D = self.keys(values)
        except EncodingError:
            return None
        keys_D[keys_D == EMPTY_KEY] = absent[0][0]
        return Slots(keys_D[codes_N, None], np.ones((len(codes_N), 1), np.float32))

    def missing(self) -> FieldSlots:
        return self._missing


class MultiCategoricalEncoder(CategoricalEncoder):
    def __init__(self, field: MultiCategorical) -> None:
        super().__init__(field)
        self._field = field
        padding = field.max_length - 1
        self._missing = (
            (self._missing[0][0],) + (EMPTY_KEY,) * padding,
            (1.0,) + (0.0,) * padding,
        )
        self.absent = self._missing

    def encode(self, value: object) -> FieldSlots:
        pairs = [(item, weight) for item, weight in self._pairs(value) if item is not None and item != ""]
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
                total += weight / heaviest  # one after the other, as `_laid_out` does; sum() of Python 3.12 does not
            pairs = [(item, weight / heaviest / total) for item, weight in pairs] if total else []
        if not pairs:
            return self.absent
        padding = self._field.max_length - len(pairs)
        keys = tuple(self.key(item) for item, _ in pairs) + (EMPTY_KEY,) * padding
        return keys, tuple(weight for _, weight in pairs) + (0.0,) * padding

    def encode_column(self, column: Column, absent: FieldSlots) -> Slots | None:
        lists = column.lists(self._field.separator)
        if lists is None or (lists.weights is not None and not self._takes(lists.weights)):
            return None
        try:
            keys_D = self.keys(lists.items.values)
        except EncodingError:
            return None
        return self._laid_out(lists, keys_D[lists.items.codes_N], absent)

    def _takes(self, weights: npt.NDArray[np.float64]) -> bool:
        least = 0.0 if self._field.pooling == "mean" else -FLOAT32_MAX
        return self._field.weighted and bool(((weights >= least) & (weights <= FLOAT32_MAX)).all())

    def _laid_out(self, lists: Lists, keys: Keys, absent: FieldSlots) -> Slots:
        field, rows = self._field, len(lists.lengths_N)
        row, weights = np.repeat(np.arange(rows), lists.lengths_N), lists.weights
        there = keys != EMPTY_KEY
        if not there.all():
            row, keys, weights = row[there], keys[there], None if weights is None else weights[there]
        count_N = np.bincount(row, minlength=rows)
        if weights is not None and count_N.max(initial=0) > field.max_length:
            crowded = count_N[row] > field.max_length
            order = np.lexsort((np.where(crowded, -np.abs(weights), 0.0), row))  # stable: the others keep their order
            keys, weights = keys[order], weights[order]
        place = np.arange(len(row)) - (np.cumsum(count_N) - count_N)[row]
        kept = place < field.max_length
        row, place, keys = row[kept], place[kept], keys[kept]
        slots = Slots(
            np.zeros((rows, self._field.max_length), np.int64), np.zeros((rows, self._field.max_length), np.float32)
        )
        slots.keys[row, place] = keys
        if weights is None:
            kept_N = np.maximum(count_N, 1).clip(max=field.max_length)
            slots.values[row, place] = 1.0 if field.pooling == "sum" else (1.0 / kept_N)[row]
        elif field.pooling == "sum":
            slots.values[row, place] = weights[kept]
        else:
            heaviest_N = np.zeros(rows)
            np.maximum.at(heaviest_N, row, weights[kept])
            count_N = np.where(heaviest_N > 0, count_N, 0)  # no weight at all is no value
            shares = weights[kept] / np.where(heaviest_N > 0, heaviest_N, 1.0)[row]
            total_N = np.bincount(row, shares, minlength=rows)
            slots.values[row, place] = shares / np.where(heaviest_N > 0, total_N, 1.0)[row]
        slots.keys[count_N == 0], slots.values[count_N == 0] = absent
        return slots

    def _pairs(self, value: object) -> list[tuple[object, float]]:
        if isinstance(value, str):
            value = self._parsed(value)
        if isinstance(value, Mapping):
            if not self._field.weighted:
                raise EncodingError(self.name, "expected a list; weights need `weighted: true` in the schema")
            return [(item, self._weight(weight)) for item, weight in value.items()]
        if isinstance(value, list | tuple):
            return [(item, 1.0) for item in value]
        return [(value, 1.0)]

    def _parsed(self, text: str) -> object:
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
    def __init__(self, field: Numeric) -> None:
        self.name = field.name
        self._keys = (slot_key(field.name + NUMERIC_MARK),)
        self._missing: FieldSlots = (self._keys, (math.nan,))
        self.absent: FieldSlots = self._missing

    def encode(self, value: object) -> FieldSlots:
        if isinstance(value, str):
            try:
                if "_" in value:
                    raise ValueError
                number = float(value)
            except ValueError:
                raise EncodingError(self.name, "expected a number") from None
        elif isinstance(value, int | float):  # a boolean counts as 0 or 1
            number = value
        else:
            raise EncodingError(self.name, f"expected a number, not {_kind(value)}")
        if number != number:
            return self.absent
        if not abs(number) <= FLOAT32_MAX:
            raise EncodingError(self.name, "the number does not fit a 32-bit float")
        return self._keys, (float(number),)

    def encode_column(self, column: Column, absent: FieldSlots) -> Slots | None:
        numbers_N = column.numbers()
        if numbers_N is None:
            return None
        missing_N = np.isnan(numbers_N)
        if not (missing_N | (np.abs(numbers_N) <= FLOAT32_MAX)).all():
            return None
        values_N = np.where(missing_N, absent[1][0], numbers_N).astype(np.float32)
        return Slots(np.full((len(numbers_N), 1), absent[0][0], np.int64), values_N[:, None])

    def missing(self) -> FieldSlots:
        return self._missing


FieldEncoder = CategoricalEncoder | NumericEncoder


def _field_encoder(field: AnyField) -> FieldEncoder:
    if isinstance(field, MultiCategorical):
        return MultiCategoricalEncoder(field)
    if isinstance(field, Categorical):
        return CategoricalEncoder(field)
    return NumericEncoder(field)


class _Part(NamedTuple):
    """One field's place in a side."""

    raw_name: str
    is_id: bool
    start: int
    stop: int
    encoder: FieldEncoder
    absent: FieldSlots  # what a missing value becomes: the encoded default, or the missing slots


class Encoder:
    """Encodes one side of a schema. Immutable after construction and safe to share between threads."""

    def __init__(self, schema: FeatureSchema, side: Side) -> None:
        """Raises SchemaError where a declared default does not fit its own field."""
        self.side = side
        self.fields = schema.side(side)
        self._parts: list[_Part] = []
        start = 0
        for field in self.fields:
            encoder = _field_encoder(field)
            try:
                if not _is_missing(field.default):
                    encoder.absent = encoder.encode(field.default)
            except EncodingError as error:
                raise SchemaError(f"field {field.name!r}, default: {error}") from error
            is_id = isinstance(field, Categorical) and field.id
            self._parts.append(_Part(field.raw_name, is_id, start, start + field.width, encoder, encoder.absent))
            start += field.width
        self.slots = start
        self.id_source = next((part.raw_name for part in self._parts if part.is_id), None)

    def encode(self, raw: Mapping[str, Any], entity_id: str | None = None, invalid: Invalid | None = None) -> Slots:
        """Encode one entity.

        Args:
            raw: field name to value: JSON values, or their text as Redis holds it. The order does not matter;
                unknown names are ignored.
            entity_id: the user's or item's id, for the field marked `id`.
            invalid: called with the field's name in place of raising, and the field counts as missing. For
                stored values, which a request should survive; what a client sent should raise.

        Returns:
            Slots with shapes [S].

        Raises:
            EncodingError: a value fits no slot.
        """
        keys: list[int] = []
        values: list[float] = []
        for raw_name, is_id, _, _, encoder, absent in self._parts:
            value = entity_id if is_id else raw.get(raw_name)
            if value is None or value == "":
                slots = absent
            else:
                try:
                    slots = encoder.encode(value)
                except EncodingError:
                    if invalid is None:
                        raise
                    invalid(encoder.name)
                    slots = absent
            keys.extend(slots[0])
            values.extend(slots[1])
        return Slots(np.array(keys, np.int64), np.array(values, np.float32))

    def patch(self, slots: Slots, raw: Mapping[str, Any]) -> Slots:
        """A copy of one entity's slots with the fields named in `raw` encoded anew: request-time overrides.

        Raises EncodingError.
        """
        keys, values = slots.keys.copy(), slots.values.copy()
        for part in self._parts:
            if part.is_id or part.raw_name not in raw:
                continue
            value = raw[part.raw_name]
            keys[part.start : part.stop], values[part.start : part.stop] = (
                part.absent if _is_missing(value) else part.encoder.encode(value)
            )
        return Slots(keys, values)

    @property
    def raw_names(self) -> list[str]:
        """Distinct raw fields this side reads, in declared order."""
        return list(dict.fromkeys(part.raw_name for part in self._parts))

    def without(self, slots: Slots, raw_name: str) -> Slots:
        """A copy of one entity's slots with one raw field missing, the id too if it is that; defaults do not apply."""
        keys, values = slots.keys.copy(), slots.values.copy()
        for part in self._parts:
            if part.raw_name == raw_name:
                keys[part.start : part.stop], values[part.start : part.stop] = part.encoder.missing()
        return Slots(keys, values)

    def encode_many(
        self, raws: Sequence[Mapping[str, Any]], ids: Sequence[str | None], invalid: Invalid | None = None
    ) -> Slots:
        """The same for N entities; shapes [N, S]."""
        slots = Slots(np.empty((len(raws), self.slots), np.int64), np.empty((len(raws), self.slots), np.float32))
        for row, (raw, entity_id) in enumerate(zip(raws, ids, strict=True)):
            slots.keys[row], slots.values[row] = self.encode(raw, entity_id, invalid)
        return slots

    def encode_columns(
        self, columns: Mapping[str, Sequence[Any] | Column], rows: int, invalid: Invalid | None = None
    ) -> Slots:
        """The same for a table: raw name to a column of `rows` values. Each distinct value is encoded once.

        The id field is read from the column of its raw name. A column that is absent counts as missing throughout.
        """
        slots = Slots(np.empty((rows, self.slots), np.int64), np.empty((rows, self.slots), np.float32))
        known = {name: Plain(column) if isinstance(column, Sequence) else column for name, column in columns.items()}
        for part in self._parts:
            column = known.get(part.raw_name)
            place = slice(part.start, part.stop)
            if column is None:
                slots.keys[:, place], slots.values[:, place] = part.absent
                continue
            whole = part.encoder.encode_column(column, part.absent)
            if whole is not None:
                slots.keys[:, place], slots.values[:, place] = whole
                continue
            distinct = column.distinct()
            encoded = [self._encode_field(part, value, invalid) for value in distinct.values]
            shape = len(encoded), part.stop - part.start
            keys_D = np.array([keys for keys, _ in encoded], np.int64).reshape(shape)
            values_D = np.array([values for _, values in encoded], np.float32).reshape(shape)
            slots.keys[:, place], slots.values[:, place] = keys_D[distinct.codes_N], values_D[distinct.codes_N]
        return slots

    @staticmethod
    def _encode_field(part: _Part, value: object, invalid: Invalid | None) -> FieldSlots:
        if _is_missing(value):
            return part.absent
        try:
            return part.encoder.encode(value)
        except EncodingError:
            if invalid is None:
                raise
            invalid(part.encoder.name)
            return part.absent


def _is_missing(value: object) -> bool:
    return value is None or value == ""


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "an array"
    return type(value).__name__
