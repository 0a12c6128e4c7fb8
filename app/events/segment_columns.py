"""The columns of a segment, and how records become them (docs/events.md says what they mean)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS, Feedback, Impression, ItemSlots, Record

FORMAT = "1"
"""The version of the format, in each segment's metadata under `ctr.format`."""
_time = pa.timestamp("us", tz="UTC")


def _fields(*columns: tuple[str, pa.DataType, bool]) -> pa.Schema:
    return pa.schema([pa.field(*column) for column in columns], {"ctr.format": FORMAT})


_keys, _values = pa.list_(pa.int64()), pa.list_(pa.float32())
SCHEMAS: dict[str, pa.Schema] = {
    IMPRESSIONS: _fields(
        ("impression_id", pa.string(), False),
        ("caller_id", pa.string(), True),
        ("at", _time, False),
        ("user_id", pa.string(), True),
        ("model", pa.string(), False),
        ("version", pa.int64(), False),
        ("label", pa.string(), False),
        ("schema_hash", pa.string(), False),
        ("policy", pa.string(), False),
        ("policy_parameter", pa.float64(), False),
        ("degraded", pa.list_(pa.string()), False),
        ("candidates", pa.int32(), False),
        ("user_keys", _keys, False),
        ("user_values", _values, False),
        ("items", pa.list_(pa.int64()), False),
        ("scores", _values, False),
        ("propensities", _values, True),
    ),
    ITEMS: _fields(
        ("reference", pa.int64(), False),
        ("item_id", pa.string(), False),
        ("at", _time, False),
        ("schema_hash", pa.string(), False),
        ("keys", _keys, False),
        ("values", _values, False),
    ),
    FEEDBACK: _fields(
        ("request_id", pa.string(), False),
        ("item_id", pa.string(), False),
        ("type", pa.string(), False),
        ("at", _time, False),
        ("received_at", _time, False),
        ("value", pa.float64(), True),
        ("feedback_id", pa.string(), True),
    ),
}
_DISTINCT = {"impression_id", "reference", "at", "scores", "propensities"}
"""Columns in which values hardly repeat: a dictionary of them takes as long as all else of a segment, for nothing."""
_tuples: dict[str, type[Impression | ItemSlots | Feedback]] = {
    IMPRESSIONS: Impression,
    ITEMS: ItemSlots,
    FEEDBACK: Feedback,
}


def dictionary_columns(kind: str) -> list[str]:
    """Return the columns of a segment that are written by a dictionary of their values, as Parquet names them."""
    return [
        f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        for field in SCHEMAS[kind]
        if field.name not in _DISTINCT
    ]


def to_batch(kind: str, records: Sequence[Record]) -> pa.RecordBatch:
    """Return records of one kind as the columns of a segment."""
    schema = SCHEMAS[kind]
    columns = zip(*records, strict=True)
    return pa.record_batch([_column(field.type, column) for field, column in zip(schema, columns, strict=True)], schema)


def _column(kind: pa.DataType, column: Sequence[Any]) -> pa.Array:
    if not pa.types.is_list(kind) or pa.types.is_string(kind.value_type):
        return pa.array(column, kind)
    arrays: list[npt.NDArray[Any]] = [_nothing if array is None else array for array in column]
    offsets = np.zeros(len(arrays) + 1, np.int32)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    absent = [array is None for array in column]
    return pa.ListArray.from_arrays(
        pa.array(offsets),
        pa.array(np.concatenate(arrays), kind.value_type),
        kind,
        mask=pa.array(absent) if any(absent) else None,
    )


_nothing = np.empty(0, np.float32)
