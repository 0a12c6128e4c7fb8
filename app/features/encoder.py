"""Encode raw features to slots: the one encoding that training, serving and the loader share.

A slot is a (key, value) pair, the (feature, value) pair of the CTR literature and the x_i of the FM formula. Every
field owns a fixed run of slots, so a side of the schema becomes `keys int64 [S]` and `values float32 [S]`:

    categorical        one slot   (xxh3_64(space, value), 1.0)
    multi_categorical  max_length slots, weights summing to 1 (mean) or kept (sum), the rest empty: (0, 0.0)
    numeric            one slot   (the field's fixed key, the raw number), NaN if missing
    missing            the field's own "missing" key with value 1.0, whose weight training may learn

Nothing here is learned, so nothing here can differ between training and serving.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from app.errors import EncodingError, SchemaError
from app.features.columns import Column, PythonColumn
from app.features.field_encoders import FieldEncoder, field_encoder
from app.features.fields import AnyField, Side
from app.features.schema import FeatureSchema
from app.features.slots import FieldSlots, Slots

OnInvalid = Callable[[str], None]
"""Called with a field's name if its value fits no slot."""

HELD = "\x1f"
"""Raw name of a field that is held at a value. No raw field is called so."""
LEAST_ROWS = 64
"""From so many entities on they are encoded field by field, each distinct value once; fewer are faster one by one,
unless none of them has a value: then they differ by their ids alone."""


class _EncodedField(NamedTuple):
    """One field of a side."""

    raw_name: str
    is_id: bool
    slots: slice
    encoder: FieldEncoder
    absent: FieldSlots
    """The slots of an absent value: those of the field's default or, without one, its "missing" slots."""


class Encoder:
    """Encodes one side of a schema. It is immutable; any thread may call it."""

    def __init__(self, schema: FeatureSchema, side: Side, *, logged: bool = False) -> None:
        """Prepare an encoder of requests, or of rows that were shown.

        Args:
            logged: whether fields of the position are read, as rows to train on have them. Else they are held at
                their `serve_as`, whatever is given.

        Raises:
            SchemaError: a declared default, or `serve_as`, does not fit its own field.
        """
        self.side = side
        self.layout = schema.layout(side)
        self.fields = self.layout.fields
        self.width = self.layout.width
        """S, the number of slots."""
        id_field = self.layout.id_field
        self.id_source = None if id_field is None else id_field.raw_name
        """Raw name of the id field; None if the side has none."""
        self._fields: list[_EncodedField] = []
        for field, slots in self.layout:
            encoder = field_encoder(field, schema.missing, schema.reading)
            try:
                if not _is_missing(field.default):
                    encoder.absent = encoder.encode(field.default)
            except EncodingError as error:
                raise SchemaError(f"field {field.name!r}, default: {error}") from error
            raw_name = field.raw_name
            if field.is_position:
                held = _held_slots(field, encoder)
                if not logged:
                    raw_name, encoder.absent = HELD, held
            self._fields.append(_EncodedField(raw_name, field is id_field, slots, encoder, encoder.absent))
        self._absent = self.encode({})
        """Slots [S] of an entity without id and values."""

    @functools.cached_property
    def overridable(self) -> frozenset[str]:
        """The raw fields that `patch` reads: all but the id, unless another field has it as its source too."""
        return frozenset(field.raw_name for field in self._fields if not field.is_id and field.raw_name != HELD)

    @property
    def raw_names(self) -> list[str]:
        """The distinct raw fields that this side reads, in declared order."""
        return list(dict.fromkeys(field.raw_name for field in self._fields if field.raw_name != HELD))

    def encode(self, raw: Mapping[str, object], entity_id: object = None, on_invalid: OnInvalid | None = None) -> Slots:
        """Encode one entity to slots [S].

        Args:
            raw: values by raw name: JSON values, or their text as Redis holds it. The order does not matter; unknown
                names are ignored.
            entity_id: the user's or item's id, for the field marked `id`.
            on_invalid: called with the field's name instead of raising; the field then counts as missing. Meant for
                stored values, which a request should survive; an invalid value from a client should raise.

        Raises:
            EncodingError: a value fits no slot.
        """
        keys: list[int] = []
        values: list[float] = []
        for raw_name, is_id, _, encoder, absent in self._fields:
            value = entity_id if is_id else raw.get(raw_name)
            if value is None or value == "":
                slots = absent
            else:
                try:
                    slots = encoder.encode(value)
                except EncodingError:
                    if on_invalid is None:
                        raise
                    on_invalid(encoder.name)
                    slots = absent
            keys.extend(slots[0])
            values.extend(slots[1])
        return Slots(np.array(keys, np.int64), np.array(values, np.float32))

    def encode_many(
        self, raws: Sequence[Mapping[str, object]], ids: Sequence[str | None], on_invalid: OnInvalid | None = None
    ) -> Slots:
        """Encode N entities to slots [N, S], each as `encode` does. Raises EncodingError if a value fits no slot."""
        named = set().union(*raws)
        if named and len(raws) < LEAST_ROWS:
            slots = self._empty_slots(len(raws))
            for row, (raw, entity_id) in enumerate(zip(raws, ids, strict=True)):
                slots.keys[row], slots.values[row] = self.encode(raw, entity_id, on_invalid)
            return slots
        columns = {name: PythonColumn([raw.get(name) for raw in raws]) for name in self.raw_names if name in named}
        id_column = PythonColumn(ids)
        return self._encode_fields(
            lambda field: id_column if field.is_id else columns.get(field.raw_name), len(raws), on_invalid
        )

    def encode_columns(
        self, columns: Mapping[str, Sequence[object] | Column], rows: int, on_invalid: OnInvalid | None = None
    ) -> Slots:
        """Encode a table to slots [rows, S], as `encode` does each row. Each distinct value is encoded once.

        Args:
            columns: a column of `rows` values by raw name, that of the id field included. An absent column counts as
                missing throughout.

        Raises:
            EncodingError: a value fits no slot, and there is no `on_invalid`.
        """
        by_name = {
            name: PythonColumn(column) if isinstance(column, Sequence) else column for name, column in columns.items()
        }
        return self._encode_fields(lambda field: by_name.get(field.raw_name), rows, on_invalid)

    def patch(self, slots: Slots, raw: Mapping[str, object]) -> Slots:
        """Copy one entity's slots [S] and encode the fields named in `raw` anew: request-time overrides.

        Raises EncodingError if a value fits no slot.
        """
        keys, values = slots.keys.copy(), slots.values.copy()
        for field in self._fields:
            if field.is_id or field.raw_name not in raw:
                continue
            value = raw[field.raw_name]
            keys[field.slots], values[field.slots] = field.absent if _is_missing(value) else field.encoder.encode(value)
        return Slots(keys, values)

    def patch_many(self, slots: Slots, raws: Mapping[int, Mapping[str, object]]) -> None:
        """Encode the fields named in `raws` anew in slots [N, S], in place: `patch` of many at once.

        Args:
            raws: values by raw name, by row.

        Raises EncodingError if a value fits no slot; the slots are then of no use.
        """
        rows: dict[str, list[int]] = {}
        values: dict[str, list[object]] = {}
        for row, raw in raws.items():
            for name, value in raw.items():
                rows.setdefault(name, []).append(row)
                values.setdefault(name, []).append(value)
        for field in self._fields:
            if field.raw_name in rows and not field.is_id:
                encoded = self._encode_column(field, PythonColumn(values[field.raw_name]), None)
                patched = rows[field.raw_name]
                slots.keys[patched, field.slots], slots.values[patched, field.slots] = encoded

    def without_each(self, slots: Slots) -> tuple[Slots, list[str]]:
        """Copy one entity's slots [S] for each raw field that has a value, and make that field missing, even the id.

        Returns:
            The copies [F, S], in which defaults do not apply, and the names of the fields.
        """
        names = self.raw_names
        keys, values = np.repeat(slots.keys[None], len(names), 0), np.repeat(slots.values[None], len(names), 0)
        for field in self._fields:
            if field.raw_name == HELD:
                continue
            row = names.index(field.raw_name)
            keys[row, field.slots], values[row, field.slots] = field.encoder.missing()
        same = (values == slots.values) | (np.isnan(values) & np.isnan(slots.values))
        changed = np.flatnonzero((keys != slots.keys).any(1) | ~same.all(1))
        return Slots(keys[changed], values[changed]), [names[row] for row in changed.tolist()]

    def _empty_slots(self, rows: int) -> Slots:
        return Slots(np.empty((rows, self.width), np.int64), np.empty((rows, self.width), np.float32))

    def _encode_fields(
        self, column_of: Callable[[_EncodedField], Column | None], rows: int, on_invalid: OnInvalid | None
    ) -> Slots:
        """Encode the fields of a table to slots [rows, S]; one without a column is missing in all rows."""
        slots = self._empty_slots(rows)
        columns = [column_of(field) for field in self._fields]
        if None in columns:  # all slots at once: field by field takes three times as long
            slots.keys[:], slots.values[:] = self._absent
        for field, column in zip(self._fields, columns, strict=True):
            if column is not None:
                encoded = self._encode_column(field, column, on_invalid)
                slots.keys[:, field.slots], slots.values[:, field.slots] = encoded
        return slots

    def _encode_column(self, field: _EncodedField, column: Column, on_invalid: OnInvalid | None) -> Slots:
        """Encode one field of a table to slots [N, width]."""
        slots = field.encoder.encode_column(column, field.absent)
        if slots is not None:
            return slots
        distinct = column.distinct()
        invalid: list[int] = []
        encoded: list[FieldSlots] = []
        for code, value in enumerate(distinct.values):
            try:
                encoded.append(field.absent if _is_missing(value) else field.encoder.encode(value))
            except EncodingError:
                if on_invalid is None:
                    raise
                invalid.append(code)
                encoded.append(field.absent)
        if on_invalid is not None and invalid:
            for _ in range(int(np.isin(distinct.codes_N, invalid).sum())):
                on_invalid(field.encoder.name)
        shape = len(encoded), field.slots.stop - field.slots.start
        keys_D = np.array([keys for keys, _ in encoded], np.int64).reshape(shape)
        values_D = np.array([values for _, values in encoded], np.float32).reshape(shape)
        return Slots(keys_D[distinct.codes_N], values_D[distinct.codes_N])


def _held_slots(field: AnyField, encoder: FieldEncoder) -> FieldSlots:
    """Return the slots that a position is held at. Raises SchemaError if its `serve_as` is no value of the field."""
    try:
        held = encoder.encode(field.serve_as)
    except EncodingError as error:
        raise SchemaError(f"field {field.name!r}, serve_as: {error}") from error
    if held == encoder.absent:
        raise SchemaError(f"field {field.name!r}, serve_as: {field.serve_as!r} counts as missing")
    return held


def _is_missing(value: object) -> bool:
    return value is None or value == ""
