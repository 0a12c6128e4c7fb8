"""`WeightColumns`: what says how much the rows of a table count, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import ConfigError
from app.features.tables.plain_series import plain_series
from app.training.data.readers.bad_rows import BadRows
from app.training.data.row_weights import RowWeights, row_weights

MAX_WEIGHT = float(np.finfo(np.float32).max)
LEAST_WEIGHT = float(np.finfo(np.float32).tiny)
"""What is smaller counts as 0."""


class WeighedRows(NamedTuple):
    """Holds the usable ones of some rows, N of them."""

    index_N: npt.NDArray[np.int64]
    """Their positions among the rows that were read."""
    labels_N: npt.NDArray[np.float32]
    weights_NC: npt.NDArray[np.float32] | None
    """What was read of how much they count, for `WeightColumns.weights_of`; None where nothing was."""


@dataclass(frozen=True)
class WeightColumns:
    """Names the columns that say how much a row counts; with none all rows count the same."""

    weight: str | None = None
    negative_rate: float | str | None = None
    """The share of the rows without a click that were kept, above 0 and up to 1, or a column of it."""
    impressions: str | None = None
    """Names the column that counts the impressions that a row stands for, of which `clicks` counts those with one."""
    clicks: str | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError if these do not go together, or the share is none."""
        rate = self.negative_rate
        if isinstance(rate, float) and not 0 < rate <= 1:
            raise ConfigError(f"--negative-rate {rate:g}: expected the share of the negatives that were kept, say 0.1")
        if (self.impressions is None) != (self.clicks is None):
            raise ConfigError("--impressions and --clicks go together: of so many impressions so many have a click")
        if self.is_counted and self.weight is not None:
            raise ConfigError(f"--weight {self.weight}: rows that count impressions have no other weight")
        if self.is_counted and isinstance(rate, str):
            raise ConfigError(f"--negative-rate {rate}: of rows that count impressions it is a number, say 0.1")

    @property
    def is_counted(self) -> bool:
        """Tell whether rows count impressions and clicks, and so have no label."""
        return self.impressions is not None

    @property
    def names(self) -> list[str]:
        """Return the columns that have to be there."""
        return [name for name in (self.weight, self._rate_column, self.impressions, self.clicks) if name is not None]

    @property
    def answers(self) -> list[str]:
        """Return the columns that tell the answer, so that no field may read them."""
        return [name for name in (self._rate_column, self.impressions, self.clicks) if name is not None]

    @property
    def identity(self) -> list[str | None]:
        """Return what decides how rows are read."""
        return [self.weight, self._rate_column, self.impressions, self.clicks]

    @property
    def width(self) -> int:
        """Return C, the number of what is kept of each row: one for each column."""
        return len(self.names)

    def select(
        self,
        frame: pl.DataFrame,
        labels: pl.Series | None,
        good: pl.Series,
        rows_N: npt.NDArray[np.int64],
        bad: BadRows,
    ) -> WeighedRows:
        """Return the usable rows with what they count, and record the rows that have no weight.

        Args:
            labels: 0 and 1, null where there is none; None where rows count impressions.
            good: flags of the rows that are not bad for another reason, of which alone is recorded.
            rows_N: the numbers of the rows.
        """
        if labels is None:
            return self._select_counted(frame, good, rows_N, bad)
        read = []
        if self.weight is not None:
            weights = read_amounts(frame[self.weight])
            reason = f"{self.weight} is no weight, which is a number of 0 or more"
            good = _without(weights.is_null(), reason, good, rows_N, bad)
            good = good & (weights > 0).fill_null(False)  # a row of weight 0 is as if it were not there
            read.append(weights)
        if self._rate_column is not None:
            rates = read_amounts(frame[self._rate_column])
            unfit = (labels == 0) & ~((rates > 0) & (rates <= 1)).fill_null(False)
            reason = f"{self._rate_column} is no share of negatives, which is above 0 and up to 1"
            good = _without(unfit.fill_null(False), reason, good, rows_N, bad)
            read.append(rates.fill_null(1.0))
        index_N = good.arg_true().to_numpy().astype(np.int64)
        columns = [column.to_numpy()[index_N].astype(np.float32) for column in read]
        labels_N = labels.to_numpy()[index_N].astype(np.float32)
        return WeighedRows(index_N, labels_N, np.stack(columns, 1) if columns else None)

    def _select_counted(
        self, frame: pl.DataFrame, good: pl.Series, rows_N: npt.NDArray[np.int64], bad: BadRows
    ) -> WeighedRows:
        """Return each row twice: as one with a click that counts k times, and as one without that counts n - k times.

        What counts 0 times is left out. With the count is kept whether the row of the file begins here.
        """
        assert self.impressions is not None
        assert self.clicks is not None
        impressions, clicks = (read_amounts(frame[name]) for name in (self.impressions, self.clicks))
        reason = f"{self.impressions} and {self.clicks} are no counts, of which the second is at most the first"
        good = _without(~(clicks <= impressions).fill_null(False), reason, good, rows_N, bad)
        counts_N2 = np.stack([column.fill_null(0).to_numpy() for column in (clicks, impressions - clicks)], 1)
        index_N, column_N = np.nonzero((counts_N2 >= LEAST_WEIGHT) & good.to_numpy()[:, None])
        begins_N = np.diff(index_N, prepend=-1) > 0
        weights_N2 = np.stack([counts_N2[index_N, column_N], begins_N], 1).astype(np.float32)
        return WeighedRows(index_N.astype(np.int64), (column_N == 0).astype(np.float32), weights_N2)

    def weights_of(
        self, labels_N: npt.NDArray[np.float32], weights_NC: npt.NDArray[np.float32] | None
    ) -> RowWeights | None:
        """Return the weights of all rows, given what was read of them; None where all count the same."""
        if not len(labels_N) or (self.negative_rate in (None, 1.0) and not self.names):
            return None
        if self.is_counted:
            assert weights_NC is not None
            assert not isinstance(self.negative_rate, str)
            units_N = np.cumsum(weights_NC[:, 1], dtype=np.float64).astype(np.int64) - 1
            return row_weights(labels_N, weights_NC[:, 0], self.negative_rate, self._note, units_N)
        columns = {} if weights_NC is None else dict(zip(self.names, weights_NC.T, strict=True))
        rates = columns[self._rate_column] if self._rate_column is not None else self.negative_rate
        assert not isinstance(rates, str)
        own = columns[self.weight] if self.weight is not None else None
        return row_weights(labels_N, own, rates, self._note)

    @property
    def _rate_column(self) -> str | None:
        return self.negative_rate if isinstance(self.negative_rate, str) else None

    @property
    def _note(self) -> str:
        parts = []
        if self.weight is not None:
            parts.append(f"each row counts as its {self.weight} says")
        if self.is_counted:
            parts.append(f"each row counts as {self.impressions} and {self.clicks} say")
        if self.negative_rate not in (None, 1.0):
            rate = self._rate_column or f"{self.negative_rate:g}"
            what = "an impression" if self.is_counted else "a row"
            parts.append(f"{what} without a click stands for 1 / {rate} of them, as the others were left out")
        return "; ".join(parts)


UNWEIGHTED = WeightColumns()


def _without(flags: pl.Series, reason: str, good: pl.Series, rows_N: npt.NDArray[np.int64], bad: BadRows) -> pl.Series:
    """Record the good rows with a flag, and return which ones are left."""
    bad.add(reason, rows_N[(good & flags).to_numpy()])
    return good & ~flags


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
