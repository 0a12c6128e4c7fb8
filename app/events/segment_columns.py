"""The columns of a segment, and how records become them (docs/events.md says what they mean)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS, ImpressionBlock, Record

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
_OF_BLOCKS = ("model", "version", "label", "schema_hash", "policy", "policy_parameter")
"""Columns of impressions in which all answers of a block have the same."""
_OF_ANSWERS = {
    "impression_id": "impression_ids",
    "caller_id": "caller_ids",
    "at": "at_us",
    "user_id": "user_ids",
    "degraded": "degraded",
    "candidates": "candidates",
}
"""Columns of impressions in which each answer has its own, by their names in a block."""


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
    if kind == IMPRESSIONS:
        columns = _impression_columns([record for record in records if isinstance(record, ImpressionBlock)])
        return pa.record_batch([columns[field.name] for field in schema], schema)
    by_field = zip(schema, zip(*records, strict=True), strict=True)
    return pa.record_batch([_column(field.type, column) for field, column in by_field], schema)


def _impression_columns(blocks: Sequence[ImpressionBlock]) -> dict[str, pa.Array]:
    """Return the columns of impressions by name."""
    schema, columns = SCHEMAS[IMPRESSIONS], {}
    answers = [len(block.items) for block in blocks]
    index_N = pa.array(np.repeat(np.arange(len(blocks)), answers))
    for name in _OF_BLOCKS:
        columns[name] = pa.array([getattr(block, name) for block in blocks], schema.field(name).type).take(index_N)
    for name, attribute in _OF_ANSWERS.items():
        values = list(chain.from_iterable(getattr(block, attribute) for block in blocks))
        columns[name] = pa.array(values, schema.field(name).type)
    slots_N = np.repeat([block.user_keys.shape[1] for block in blocks], answers)
    columns["user_keys"] = _lists(_keys, [block.user_keys.ravel() for block in blocks], slots_N)
    columns["user_values"] = _lists(_values, [block.user_values.ravel() for block in blocks], slots_N)
    items_N = np.concatenate([block.items for block in blocks])
    columns["items"] = _lists(_keys, [block.item_references for block in blocks], items_N)
    columns["scores"] = _lists(_values, [block.scores for block in blocks], items_N)
    drawn = [block.propensities for block in blocks if block.propensities is not None]
    absent_N = np.repeat([block.propensities is None for block in blocks], answers)
    columns["propensities"] = _lists(_values, drawn, np.where(absent_N, 0, items_N), absent_N)
    return columns


def _column(kind: pa.DataType, column: Sequence[Any]) -> pa.Array:
    """Return a column of items or feedback."""
    return _lists(kind, column, [len(array) for array in column]) if pa.types.is_list(kind) else pa.array(column, kind)


def _lists(
    kind: pa.DataType,
    arrays: Sequence[npt.NDArray[Any]],
    length_N: npt.ArrayLike,
    absent_N: npt.NDArray[np.bool_] | None = None,
) -> pa.Array:
    """Return N lists of these lengths, whose elements follow each other in the arrays."""
    offsets = np.concatenate([[0], np.cumsum(length_N)]).astype(np.int32)
    values = pa.array(np.concatenate(arrays), kind.value_type) if arrays else pa.array([], kind.value_type)
    return pa.ListArray.from_arrays(
        pa.array(offsets), values, kind, mask=None if absent_N is None else pa.array(absent_N)
    )
