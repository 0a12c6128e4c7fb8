"""`WeightColumns`: which columns of a table say how much its rows count, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from app.features.tables.plain_series import plain_series
from app.training.data.readers.bad_rows import BadRows
from app.training.data.row_weights import RowWeights, weights_of_column

MAX_WEIGHT = float(np.finfo(np.float32).max)
LEAST_WEIGHT = float(np.finfo(np.float32).tiny)
"""What is smaller counts as 0."""


@dataclass(frozen=True)
class WeightColumns:
    """Names the columns that say how much a row counts; with none all rows count the same."""

    weight: str | None = None

    @property
    def names(self) -> list[str]:
        """Return the columns that have to be there."""
        return [name for name in (self.weight,) if name is not None]

    def read(self, frame: pl.DataFrame, good: pl.Series, rows_N: npt.NDArray[np.int64], bad: BadRows) -> pl.Series:
        """Return the weights of rows as Float64, null where there is none, and record the rows without one.

        Args:
            good: flags of the rows that are not bad for another reason, of which alone is recorded.
            rows_N: the numbers of the rows.
        """
        if self.weight is None:
            return pl.repeat(1.0, len(frame), dtype=pl.Float64, eager=True)
        weights = read_amounts(frame[self.weight])
        absent_N = (good & weights.is_null()).to_numpy()
        bad.add(f"{self.weight} is no weight, which is a number of 0 or more", rows_N[absent_N])
        return weights

    def weights_of(self, weights_N: npt.NDArray[np.float32] | None) -> RowWeights | None:
        """Return the weights of all rows, given what was read of them; None where all count the same."""
        if self.weight is None or weights_N is None or not len(weights_N):
            return None
        return weights_of_column(self.weight, weights_N)


UNWEIGHTED = WeightColumns()


def read_amounts(column: pl.Series) -> pl.Series:
    """Return finite numbers of 0 or more as Float64, null where a value is none; what float32 has as 0 is 0."""
    plain = plain_series(column)
    if plain.dtype.is_nested() or plain.dtype.is_temporal() or plain.dtype == pl.Binary:
        return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    if plain.dtype == pl.String:
        plain = plain.str.strip_chars()
    numbers = plain.cast(pl.Float64, strict=False)
    fits = ((numbers >= 0) & (numbers <= MAX_WEIGHT)).fill_null(False)
    numbers = numbers.set(~fits, None)
    return numbers.set((numbers < LEAST_WEIGHT).fill_null(False), 0.0)
