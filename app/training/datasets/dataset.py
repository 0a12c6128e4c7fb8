"""What every format becomes: raw features of both sides, labels, times, and the count of rows that were left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import ConfigError, DataError
from app.features.schema import AnyField, Categorical, FeatureSchema, MultiCategorical, Side

MAX_NAMED_ROWS = 10
MAX_BAD_SHARE = 0.05
"""A file with a larger share of bad rows is more likely misread than dirty."""

ID_COLUMN = "id"
SAMPLE_LABELS = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0}


@dataclass(frozen=True)
class Skipped:
    """Rows that were left out; numbers count data rows from 1, the header not included."""

    count: int = 0
    first_rows: tuple[int, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        named = ", ".join(str(row) for row in self.first_rows)
        more = ", ..." if self.count > len(self.first_rows) else ""
        return f"{self.count} bad rows left out ({self.reason}; rows {named}{more})"


@dataclass(frozen=True)
class Dataset:
    """N labelled impressions. `user` (request side, context included) and `item` are N rows by raw field name."""

    name: str
    schema: FeatureSchema
    user: pl.DataFrame
    item: pl.DataFrame
    labels_N: npt.NDArray[np.float32]
    timestamps_N: npt.NDArray[np.int64] | None
    """Seconds since 1970, or any other number that grows with time."""
    source: str
    skipped: Skipped = field(default_factory=Skipped)
    users: pl.DataFrame | None = None
    """The last state of every user, with an `id` column: what serving should know of them."""
    items: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError where the schema reads a field that is not there: a silent default would hide a typo."""
        for side, frame in (("user", self.user), ("item", self.item)):
            missing = {f.raw_name for f in self.schema.fields if f.side == side} - set(frame.columns)
            if missing:
                raise ConfigError(
                    f"{self.name} has no {side} field {', '.join(sorted(missing))}; it has {', '.join(frame.columns)}"
                )

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, index: npt.NDArray[np.int64]) -> Dataset:
        """The rows at these positions, in this order."""
        times = None if self.timestamps_N is None else self.timestamps_N[index]
        return replace(
            self, user=self.user[index], item=self.item[index], labels_N=self.labels_N[index], timestamps_N=times
        )

    def side(self, side: Side) -> pl.DataFrame:
        return self.user if side == "user" else self.item

    def states(self, side: Side) -> pl.DataFrame | None:
        """The last state of every user or item; where the format knows none better, its newest row."""
        known = self.users if side == "user" else self.items
        id_field = id_field_of(self.schema, side)
        if known is not None or id_field is None:
            return known
        frame, context = self.side(side), {f.raw_name for f in self.schema.fields if f.entity == "context"}
        if self.timestamps_N is not None:
            frame = frame[np.argsort(self.timestamps_N, kind="stable")]
        frame = frame.drop(context & set(frame.columns)).drop_nulls(id_field.raw_name)
        newest = frame.unique(id_field.raw_name, keep="last", maintain_order=True)
        return newest.rename({id_field.raw_name: ID_COLUMN})


def id_field_of(schema: FeatureSchema, side: Side) -> Categorical | None:
    return next((f for f in schema.side(side) if isinstance(f, Categorical) and f.id), None)


def from_frame(
    frame: pl.DataFrame,
    schema: FeatureSchema,
    *,
    name: str,
    source: str,
    label: str,
    timestamp: str | None = None,
    targets: Sequence[str] = (),
) -> Dataset:
    """A dataset out of one table with a column per raw field.

    Args:
        label: column of 0 or 1 (or false or true).
        targets: columns that tell the answer and so may not be features, beside the label.

    Raises:
        ConfigError: the schema reads a target.
        DataError: no rows, a column is missing, more than `MAX_BAD_SHARE` of the rows have a bad label, or all
            labels are equal.
    """
    names = {side: list(dict.fromkeys(f.raw_name for f in schema.side(side))) for side in ("user", "item")}
    leaks = {label, *targets} & {*names["user"], *names["item"]}
    if leaks:
        raise ConfigError(f"{sorted(leaks)} tell the answer and cannot be features; remove them from the schema")
    wanted = [label, *names["user"], *names["item"], *([timestamp] if timestamp else [])]
    missing = [column for column in dict.fromkeys(wanted) if column not in frame.columns]
    if missing:
        raise DataError(f"{source}: no column {', '.join(missing)}; it has {', '.join(frame.columns[:40])}")
    if frame.is_empty():
        raise DataError(f"{source}: has a header but no rows")

    labels = frame[label].cast(pl.String, strict=False).str.strip_chars().str.to_lowercase()
    labels = labels.replace_strict(SAMPLE_LABELS, default=None, return_dtype=pl.Float32)
    good, reason = labels.is_not_null(), f"{label} is not 0 or 1"
    if timestamp:
        times = frame[timestamp].cast(pl.Float64, strict=False)
        good, reason = good & times.is_finite().fill_null(False), f"{label} is not 0 or 1, or {timestamp} not a number"
    skipped = skip(good, reason, source)
    frame = without_nan(frame).filter(good)
    labels_N = labels.filter(good).to_numpy().astype(np.float32)
    if labels_N.min() == labels_N.max():
        raise DataError(f"{source}: every {label} is {labels_N[0]:.0f}; there is nothing to learn from")
    return Dataset(
        name=name,
        schema=schema,
        user=frame.select(names["user"]),
        item=frame.select(names["item"]),
        labels_N=labels_N,
        timestamps_N=times.filter(good).to_numpy().astype(np.int64) if timestamp else None,
        source=source,
        skipped=skipped,
    )


def skip(good: pl.Series, reason: str, source: str) -> Skipped:
    """Count the rows that are not good. Raises DataError, which names rows, where they are too many."""
    bad = (~good).arg_true()
    if bad.is_empty():
        return Skipped()
    skipped = Skipped(len(bad), tuple(int(row) + 1 for row in bad[:MAX_NAMED_ROWS]), reason)
    if len(bad) > MAX_BAD_SHARE * len(good):
        raise DataError(
            f"{source}: {skipped}; more than {MAX_BAD_SHARE:.0%} of {len(good)} rows: is it the right column?"
        )
    return skipped


def without_nan(frame: pl.DataFrame) -> pl.DataFrame:
    """NaN is how some writers spell missing; the encoder's word for it is null."""
    return frame.with_columns(pl.selectors.float().fill_nan(None))


def raw_features(row: dict[str, Any], fields: Sequence[AnyField]) -> dict[str, Any]:
    """One row as JSON holds it: no missing values, no id, JSON text of weighted lists as objects."""
    multi = {f.raw_name for f in fields if isinstance(f, MultiCategorical)}
    ids = {f.raw_name for f in fields if isinstance(f, Categorical) and f.id}
    return {
        name: msgspec.json.decode(value) if name in multi and isinstance(value, str) and value[:1] in "[{" else value
        for name, value in row.items()
        if name not in ids and value is not None and value != ""
    }


def export_states(dataset: Dataset, folder: Path) -> dict[Side, int]:
    """Write `users.jsonl` and `items.jsonl`, one `{"id": ..., field: value, ...}` a line, as `ctr load` reads them.

    Returns:
        Lines written per side; a side without an id field has no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[Side, int] = {}
    sides: tuple[Side, Side] = ("user", "item")
    for side in sides:
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
