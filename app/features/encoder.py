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

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from app.errors import EncodingError, SchemaError
from app.features.columns import Column, Plain
from app.features.field_encoders import FieldEncoder, field_encoder
from app.features.fields import Side
from app.features.schema import FeatureSchema
from app.features.slots import FieldSlots, Slots

Invalid = Callable[[str], None]


class _Part(NamedTuple):
    """One field's place in a side."""

    raw_name: str
    is_id: bool
    slots: slice
    encoder: FieldEncoder
    absent: FieldSlots  # what a missing value becomes: the encoded default, or the missing slots


class Encoder:
    """Encodes one side of a schema. Immutable after construction and safe to share between threads."""

    def __init__(self, schema: FeatureSchema, side: Side) -> None:
        """Raises SchemaError where a declared default does not fit its own field."""
        self.side = side
        layout = schema.layout(side)
        self.fields = layout.fields
        self._parts: list[_Part] = []
        for field, slots in layout:
            encoder = field_encoder(field)
            try:
                if not _is_missing(field.default):
                    encoder.absent = encoder.encode(field.default)
            except EncodingError as error:
                raise SchemaError(f"field {field.name!r}, default: {error}") from error
            self._parts.append(_Part(field.raw_name, field is layout.id_field, slots, encoder, encoder.absent))
        self.layout = layout
        self.slots = layout.width
        self.id_source = layout.id_field and layout.id_field.raw_name

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
        for raw_name, is_id, _, encoder, absent in self._parts:
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
            keys[part.slots], values[part.slots] = part.absent if _is_missing(value) else part.encoder.encode(value)
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
                keys[part.slots], values[part.slots] = part.encoder.missing()
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
            if column is None:
                slots.keys[:, part.slots], slots.values[:, part.slots] = part.absent
                continue
            whole = part.encoder.encode_column(column, part.absent)
            if whole is not None:
                slots.keys[:, part.slots], slots.values[:, part.slots] = whole
                continue
            distinct = column.distinct()
            encoded = [self._encode_field(part, value, invalid) for value in distinct.values]
            shape = len(encoded), part.slots.stop - part.slots.start
            keys_D = np.array([keys for keys, _ in encoded], np.int64).reshape(shape)
            values_D = np.array([values for _, values in encoded], np.float32).reshape(shape)
            slots.keys[:, part.slots], slots.values[:, part.slots] = (
                keys_D[distinct.codes_N],
                values_D[distinct.codes_N],
            )
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
