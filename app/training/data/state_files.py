"""Write the last state of users and items for `ctr load`, which reads it into the feature store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from app.features.fields import SIDES, AnyField, MultiCategorical, Side
from app.training.data.dataset import ID_COLUMN, Dataset, without_nan


def export_states(dataset: Dataset, folder: Path) -> dict[Side, int]:
    """Write `users.jsonl` and `items.jsonl`, one `{"id": ..., field: value, ...}` a line, as `ctr load` reads them.

    Returns:
        The number of lines per side; a side without an id field has no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[Side, int] = {}
    for side in SIDES:
        states = dataset.states(side)
        if states is None:
            continue
        fields = dataset.schema.side(side)
        encoder = msgspec.json.Encoder()
        with (folder / f"{side}s.jsonl").open("wb") as file:
            for row in without_nan(states).iter_rows(named=True):
                line = {ID_COLUMN: str(row.pop(ID_COLUMN)), **raw_features(row, fields)}
                file.write(encoder.encode(line) + b"\n")
        written[side] = len(states)
    return written


def raw_features(row: dict[str, Any], fields: Sequence[AnyField]) -> dict[str, Any]:
    """Return one row as JSON holds it: without missing values and ids, JSON text of weighted lists as objects."""
    multi = {f.raw_name for f in fields if isinstance(f, MultiCategorical)}
    ids = {f.raw_name for f in fields if f.is_id}
    return {
        name: _as_json(value) if name in multi else value
        for name, value in row.items()
        if name not in ids and value is not None and value != ""
    }


def _as_json(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "[{":
        return msgspec.json.decode(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {pair["item"]: pair["weight"] for pair in value}
    return value
