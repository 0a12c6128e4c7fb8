"""A world with thirty features, its table of how they changed, and the log of a service that was given them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from app.events.logged_schema import LoggedSchema, schema_file
from app.events.records import IMPRESSIONS, ITEMS
from app.events.segment import segment_name, write_segment
from app.events.segment_columns import SCHEMAS
from app.features.encoder import Encoder
from app.features.fields import Side
from app.features.schema import FeatureSchema, parse_schema
from app.features.slots import Slots
from app.features.tables.plain_series import plain_frame
from app.training.data.readers.series_column import series_columns

BEGAN = datetime(2026, 9, 20, tzinfo=UTC)
STEP_H = 2
"""Features are computed anew so often."""
STEPS = 36
UNTIL_H = STEP_H * STEPS - 1
"""When a service answers for the last time, as long as its features are known."""
SCHEMA = parse_schema(
    "fields:\n"
    + "".join(
        f"  - {{name: {side}_id, type: categorical, entity: {side}, id: true}}\n"
        + "".join(f"  - {{name: {side}_word{n}, type: categorical, entity: {side}}}\n" for n in range(5))
        + "".join(f"  - {{name: {side}_code{n}, type: categorical, entity: {side}}}\n" for n in range(2))
        + "".join(f"  - {{name: {side}_number{n}, type: numeric, entity: {side}}}\n" for n in range(6))
        + f"  - {{name: {side}_tags, type: multi_categorical, entity: {side}, max_length: 6}}\n"
        + f"  - {{name: {side}_likes, type: multi_categorical, entity: {side}, max_length: 6, weighted: true}}\n"
        for side in ("user", "item")
    )
    + "  - {name: hour, type: categorical, entity: context}\n"
)
"""Fifteen features of either side and the hour of the request, beside two ids."""
FEATURES = [one.name for one in SCHEMA.fields if not one.is_id and one.entity != "context"]

Corruption = Callable[[pl.DataFrame], pl.Series]
"""Makes a column of what the service was given of what it should have been given."""


@dataclass
class World:
    """What the features of users and items were, as of any time."""

    entities: int = 200
    seed: int = 0
    tables: dict[Side, pl.DataFrame] = field(init=False)

    def __post_init__(self) -> None:
        self.tables = {side: self._table(side, number) for number, side in enumerate(("user", "item"))}

    def _table(self, side: str, number: int) -> pl.DataFrame:
        random = np.random.default_rng([self.seed, number])
        entity = np.repeat(np.arange(self.entities), STEPS)
        count = len(entity)
        words = np.array(["Red", "green Tea", "BLUE", "Aqua Marine", "ivory", "Nut-brown", "grey", "Rose", "Teal"])
        columns: dict[str, Any] = {
            f"{side}_id": entity.astype(str),
            "at": [BEGAN + timedelta(hours=STEP_H * step) for step in range(STEPS)] * self.entities,
        }
        for n in range(5):
            columns[f"{side}_word{n}"] = words[random.integers(0, len(words), count)]
        for n in range(2):
            columns[f"{side}_code{n}"] = random.integers(1, 1000, count)
        for n in range(6):
            columns[f"{side}_number{n}"] = np.round(random.normal(10, 20, count), 3)
        tags = np.array([f"tag{n}" for n in range(20)])
        columns[f"{side}_tags"] = [
            tags[random.choice(20, size, replace=False)].tolist() for size in random.integers(0, 7, count)
        ]
        columns[f"{side}_likes"] = [
            [
                {"key": one, "value": weight}
                for one, weight in zip(
                    tags[random.choice(20, size, replace=False)], random.random(size).round(2) + 0.1, strict=True
                )
            ]
            for size in random.integers(1, 5, count)
        ]
        frame = pl.DataFrame(columns)
        # Some values are missing on both sides, which is no skew.
        gone = pl.Series(random.random(count) < 0.1)
        return frame.with_columns(
            pl.when(~gone).then(pl.col(name)).alias(name) for name in (f"{side}_word0", f"{side}_number0")
        )

    def as_of(self, side: Side, entity: np.ndarray, at_h: np.ndarray) -> pl.DataFrame:
        """Return the rows that held at times in hours since it began; those before it began are rows of nothing."""
        step = np.floor(at_h / STEP_H).astype(int)
        known = (step >= 0) & (step < STEPS)
        rows = self.tables[side][(entity * STEPS + step.clip(0, STEPS - 1)).tolist()]
        known_column = pl.Series(known)
        return rows.with_columns(
            pl.when(known_column).then(pl.col(name)).alias(name) for name in rows.columns if not name.endswith("_id")
        )


@dataclass
class Service:
    """Records what a service was given, in the format of the log."""

    world: World
    folder: Path
    corrupt: dict[str, Corruption] = field(default_factory=dict)
    lag_h: dict[str, float] = field(default_factory=dict)
    """By field, how much too late its values come."""
    schema: FeatureSchema = SCHEMA

    def record(self, answers: int, *, items: int = 4, seed: int = 1, hours: float = UNTIL_H) -> None:
        """Record answers at random times, each of some items."""
        random = np.random.default_rng(seed)
        path = self.folder / schema_file(self.schema.hash)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(LoggedSchema(self.schema.model_dump(mode="json"), [], [])))
        at_h = np.sort(random.uniform(30, hours, answers))
        users = self._slots("user", random.integers(0, self.world.entities, answers), at_h, random)
        item_at_h = np.repeat(at_h, items)
        item_ids = random.integers(0, self.world.entities, answers * items)
        item_slots = self._slots("item", item_ids, item_at_h, random)
        at_us = (BEGAN.timestamp() * 1e6 + at_h * 3.6e9).astype(np.int64)
        hour = (at_h // 1).astype(int)
        for number in np.unique(hour).tolist():
            rows = np.flatnonzero(hour == number)
            of_items = (rows[:, None] * items + np.arange(items)).ravel()
            self._write(ITEMS, number, at_us[rows[0]], self._item_columns(of_items, item_ids, item_slots, items, at_us))
            self._write(IMPRESSIONS, number, at_us[rows[0]], self._answer_columns(rows, users, items, at_us))

    def _slots(self, side: Side, entity: np.ndarray, at_h: np.ndarray, random: np.random.Generator) -> Slots:
        given = self.world.as_of(side, entity, at_h)
        for name, lag_h in self.lag_h.items():
            if name in given.columns:
                given = given.with_columns(self.world.as_of(side, entity, at_h - lag_h)[name])
        for name, corruption in self.corrupt.items():
            if name in given.columns:
                given = given.with_columns(corruption(given).alias(name))
        if side == "user":
            given = given.with_columns(pl.Series("hour", random.integers(0, 24, len(given))))
        encoder = Encoder(self.schema, side)
        return encoder.encode_columns(series_columns(plain_frame(given.drop("at"))), len(given))

    def _item_columns(
        self, rows: np.ndarray, ids: np.ndarray, slots: Slots, items: int, at_us: np.ndarray
    ) -> dict[str, Any]:
        return {
            "reference": rows,
            "item_id": ids[rows].astype(str),
            "at": at_us[rows // items],
            "schema_hash": [self.schema.hash] * len(rows),
            "keys": lists(slots.keys[rows]),
            "values": lists(slots.values[rows]),
        }

    def _answer_columns(self, rows: np.ndarray, slots: Slots, items: int, at_us: np.ndarray) -> dict[str, Any]:
        count = len(rows)
        references = rows[:, None] * items + np.arange(items)
        return {
            "impression_id": [f"impression-{row}" for row in rows.tolist()],
            "caller_id": [None] * count,
            "at": at_us[rows],
            "user_id": [None] * count,
            "model": ["deepfm"] * count,
            "version": [7] * count,
            "label": ["stable"] * count,
            "schema_hash": [self.schema.hash] * count,
            "policy": [""] * count,
            "policy_parameter": [0.0] * count,
            "degraded": [[]] * count,
            "candidates": [items] * count,
            "user_keys": lists(slots.keys[rows]),
            "user_values": lists(slots.values[rows]),
            "items": lists(references),
            "scores": lists(np.full((count, items), 0.5, np.float32)),
            "propensities": [None] * count,
        }

    def _write(self, kind: str, hour: int, at_us: int, columns: dict[str, Any]) -> None:
        schema = SCHEMAS[kind]
        arrays = [
            column.cast(one.type) if isinstance(column, pa.Array) else pa.array(column, one.type)
            for one, column in zip(schema, columns.values(), strict=True)
        ]
        batch = pa.record_batch(arrays, schema)
        write_segment(self.folder, segment_name(kind, int(at_us), f"w-{hour}"), [batch])


def lists(rows: np.ndarray) -> pa.Array:
    """Return rows [N, W] as lists."""
    offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(rows).ravel()))
