"""The doors that a value comes through, and the slots it has behind each: training, loading, requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from app.api.schemas import parse_rank
from app.features.encoder import Encoder
from app.features.fields import Side
from app.features.loading.record_file import RecordFile
from app.features.loading.stored_text import stored_id, stored_text
from app.features.schema import FeatureSchema
from app.features.slots import Slots
from app.training.data.formats.table import table_source
from app.training.data.readers.bad_rows import BadRows
from app.training.data.table_encoder import TableEncoder


def trained(
    path: Path, schema: FeatureSchema, label: str = "clicked", timestamp: str | None = "at", max_bad: float = 0.01
) -> dict[Side, Slots]:
    """Return the slots that training makes of a file. Raises DataError as it does."""
    source = table_source(path, schema, label, timestamp)
    encoder, bad = TableEncoder(schema, str(path), max_bad), BadRows(str(path), max_bad)
    sides: dict[Side, list[Slots]] = {"user": [], "item": []}
    for chunk in source.usable_rows(bad):
        for side, slots in sides.items():
            slots.append(encoder.slots(side, chunk.side(side), chunk.rows_N))
        encoder.check(bad.rows, chunk.fraction)
    return {
        side: Slots(np.concatenate([one.keys for one in slots]), np.concatenate([one.values for one in slots]))
        for side, slots in sides.items()
    }


def loaded(path: Path, schema: FeatureSchema, side: Side, id_field: str = "id") -> dict[str, Slots]:
    """Return the slots that serving makes of what `ctr load` stores, by id. Raises EncodingError for a bad row."""
    encoder = Encoder(schema, side)
    found = {}
    for record in RecordFile(path):
        assert not record.problem, record.problem
        entity = stored_id(record.values[id_field], id_field)
        texts = {name: stored_text(value, name) for name, value in record.values.items() if name in encoder.raw_names}
        found[entity] = encoder.encode({name: text for name, text in texts.items() if text is not None}, entity)
    return found


def requested(schema: FeatureSchema, side: Side, raw: Mapping[str, Any], entity: Any = "x") -> Slots:
    """Return the slots of a user or item whose features come with a request. Raises RequestError as it does."""
    body: dict[str, Any] = {"user_id": entity, "item_ids": [entity]}
    body |= {"user_features": raw} if side == "user" else {"item_features": {"x": raw}}
    request = parse_rank(msgspec.json.encode(body), 10)
    features = request.user_features if side == "user" else request.item_features["x"]
    return Encoder(schema, side).encode(features, request.user_id)


def assert_same(one: Slots, other: Slots) -> None:
    """Check that slots are the same to the bit, NaN included."""
    np.testing.assert_array_equal(one.keys, other.keys)
    np.testing.assert_array_equal(one.values, other.values)


def row(slots: Slots, index: int) -> Slots:
    """Return the slots of one row."""
    return Slots(slots.keys[index], slots.values[index])
