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
from app.features.fields import SIDES, AnyField, Categorical, MultiCategorical, Side
from app.features.schema import FeatureSchema
from app.training.data.readers.bad_rows import MAX_BAD_SHARE, BadRows
from app.training.data.readers.bad_rows import Skipped as Skipped
from app.training.data.readers.table_chunks import stacked
from app.training.data.source import Source

ID_COLUMN = "id"


@dataclass(frozen=True)
class Dataset:
    """N labelled impressions. `user` (request side, context included) and `item` are N rows by raw field name.

    A dataset that is larger than memory is a `MappedDataset`, whose `user` and `item` are a few examples: what is
    done with all rows is done with `app.training.preprocessing.encode.encode`.
    """

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
    max_bad: float = MAX_BAD_SHARE
    """Share of the rows that may have a value that fits no slot, in each field."""

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

    def examples(self) -> Dataset:
        """Rows with their raw features: all of them, or some where the raw features of all are not at hand."""
        return self

    def side(self, side: Side) -> pl.DataFrame:
        return self.user if side == "user" else self.item

    def states(self, side: Side) -> pl.DataFrame | None:
        """The last state of every user or item; where the format knows none better, its newest row."""
        known = self.users if side == "user" else self.items
        id_field = self.schema.layout(side).id_field
        if known is not None or id_field is None:
            return known
        frame, context = self.side(side), {f.raw_name for f in self.schema.fields if f.entity == "context"}
        if self.timestamps_N is not None:
            frame = frame[np.argsort(self.timestamps_N, kind="stable")]
        frame = frame.drop(context & set(frame.columns)).drop_nulls(id_field.raw_name)
        newest = frame.unique(id_field.raw_name, keep="last", maintain_order=True)
        return newest.rename({id_field.raw_name: ID_COLUMN})


def from_source(source: Source, max_bad: float = MAX_BAD_SHARE) -> Dataset:
    """All of a file in memory.

    Raises:
        DataError: no rows, a column is missing, more than `max_bad` of the rows are bad, or all labels are equal.
    """
    bad = BadRows(str(source.path), max_bad)
    parts = list(source.parts(bad))
    labels_N = np.concatenate([part.labels_N for part in parts])
    check_labels(source, labels_N)
    times = [part.times_N for part in parts if part.times_N is not None]
    return Dataset(
        name=source.name,
        schema=source.schema,
        user=stacked([part.user for part in parts]),
        item=stacked([part.item for part in parts]),
        labels_N=labels_N,
        timestamps_N=np.concatenate(times) if times else None,
        source=str(source.path),
        skipped=bad.skipped,
        max_bad=max_bad,
    )


def check_labels(source: Source, labels_N: npt.NDArray[np.float32]) -> None:
    """Raises DataError where there is nothing to learn from."""
    if labels_N.min(initial=1.0) == labels_N.max(initial=0.0):
        raise DataError(f"{source.path}: every {source.label} is {labels_N[0]:.0f}; there is nothing to learn from")


def skip(good: pl.Series, reason: str, source: str, max_bad: float = MAX_BAD_SHARE) -> Skipped:
    """Count the rows that are not good. Raises DataError, which names rows, where they are too many."""
    bad = BadRows(source, max_bad, len(good))
    bad.add(reason, (~good).arg_true().to_numpy() + 1)
    bad.check()
    return bad.skipped


def without_nan(frame: pl.DataFrame) -> pl.DataFrame:
    """NaN is how some writers spell missing; the encoder's word for it is null."""
    return frame.with_columns(pl.selectors.float().fill_nan(None))


def raw_features(row: dict[str, Any], fields: Sequence[AnyField]) -> dict[str, Any]:
    """One row as JSON holds it: no missing values, no id, JSON text of weighted lists as objects."""
    multi = {f.raw_name for f in fields if isinstance(f, MultiCategorical)}
    ids = {f.raw_name for f in fields if isinstance(f, Categorical) and f.id}
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


def export_states(dataset: Dataset, folder: Path) -> dict[Side, int]:
    """Write `users.jsonl` and `items.jsonl`, one `{"id": ..., field: value, ...}` a line, as `ctr load` reads them.

    Returns:
        Lines written per side; a side without an id field has no file.
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
