"""Hold what every format is read into: raw features of both sides, labels, times, and a record of skipped rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import ConfigError
from app.features.fields import Side
from app.features.schema import FeatureSchema
from app.training.data.readers.bad_rows import MAX_BAD_SHARE, SkippedRows
from app.training.data.row_weights import RowWeights

ID_COLUMN = "id"


@dataclass(frozen=True)
class Dataset:
    """Holds N labelled impressions. `user` (request side, context included) and `item` are N rows by raw field name.

    A dataset that is larger than memory is a `MappedDataset`, whose `user` and `item` are a few examples. Code that
    goes over all rows takes the result of `app.training.preprocessing.encode.encode`, which accepts either.
    """

    name: str
    """Names the format."""
    schema: FeatureSchema
    user: pl.DataFrame
    item: pl.DataFrame
    labels_N: npt.NDArray[np.float32]
    timestamps_N: npt.NDArray[np.int64] | None
    """Holds seconds since 1970, or any other number that grows with time."""
    source: str
    """Names the data in reports and messages."""
    skipped: SkippedRows = field(default_factory=SkippedRows)
    user_states: pl.DataFrame | None = None
    """Holds the last state of every user, with an `id` column, where the format knows it."""
    item_states: pl.DataFrame | None = None
    """Holds the last state of every item, with an `id` column, where the format knows it."""
    max_bad: float = MAX_BAD_SHARE
    """Limits the share of rows with a value that fits no slot, in each field."""
    notes: tuple[str, ...] = ()
    """Says what a user should know of how the files were read."""
    weights: RowWeights | None = None
    """Says how much each row counts; None where all count the same."""

    def __post_init__(self) -> None:
        """Raise ConfigError if the schema reads a field that is not there: a silent default would hide a typo."""
        for side, frame in (("user", self.user), ("item", self.item)):
            missing = {f.raw_name for f in self.schema.fields if f.side == side} - set(frame.columns)
            if missing:
                raise ConfigError(
                    f"{self.name} has no {side} field {', '.join(sorted(missing))}; it has {', '.join(frame.columns)}"
                )

    def __len__(self) -> int:
        return len(self.labels_N)

    def counts(self) -> tuple[int, int]:
        """Return how many impressions the rows are, and how many of these have a click."""
        weights = self.weights
        if weights is None or weights.units_N is None:
            return len(self), int((self.labels_N > 0.5).sum())
        counts_N = weights.training_N.astype(np.float64)
        return round(float(counts_N.sum())), round(float(counts_N @ self.labels_N))

    def take(self, index: npt.NDArray[np.int64]) -> Dataset:
        """Return the rows at these positions, in this order."""
        times = None if self.timestamps_N is None else self.timestamps_N[index]
        return replace(
            self,
            user=self.user[index],
            item=self.item[index],
            labels_N=self.labels_N[index],
            timestamps_N=times,
            weights=self.weights and self.weights.take(index),
        )

    def examples(self) -> Dataset:
        """Return rows with their raw features: all of them, or some where the dataset is mapped."""
        return self

    def side(self, side: Side) -> pl.DataFrame:
        return self.user if side == "user" else self.item

    def states(self, side: Side) -> pl.DataFrame | None:
        """Return the last state of every user or item, from the format or else its newest row; None without an id."""
        states = self.user_states if side == "user" else self.item_states
        id_field = self.schema.layout(side).id_field
        if states is not None or id_field is None:
            return states
        frame, context = self.side(side), {f.raw_name for f in self.schema.fields if not f.is_stored}
        if self.timestamps_N is not None:
            frame = frame[np.argsort(self.timestamps_N, kind="stable")]
        frame = frame.drop(context & set(frame.columns)).drop_nulls(id_field.raw_name)
        newest = frame.unique(id_field.raw_name, keep="last", maintain_order=True)
        return newest.rename({id_field.raw_name: ID_COLUMN})


def without_nan(frame: pl.DataFrame) -> pl.DataFrame:
    """Replace NaN, which some writers use for missing numbers, by null, which the encoder takes as missing."""
    return frame.with_columns(pl.selectors.float().fill_nan(None))
