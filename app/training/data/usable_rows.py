"""`UsableRows`: the rows of a file that have a label, and a time where one is asked for; the others are recorded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import DataError
from app.features.fields import Side
from app.features.times import HOW_TO_WRITE
from app.features.values import INT64_MAX
from app.training.data.label_threshold import label_threshold
from app.training.data.labels import LabelReading
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.time_values import TimeForm, has_day_first, seconds_of

MOSTLY_NO_LABEL = 0.2
"""A column with more values that are neither 0 nor 1 is no label with errors in it, but something else."""


class UsableRows(NamedTuple):
    """Holds some usable rows: raw features of both sides, labels, times, and their numbers in the file."""

    user: pl.DataFrame
    item: pl.DataFrame
    labels_N: npt.NDArray[np.float32]
    times_N: npt.NDArray[np.int64] | None
    rows_N: npt.NDArray[np.int64]
    fraction: float
    """Tells the share of the file that has been read, 0 to 1."""
    weights_NC: npt.NDArray[np.float32] | None = None
    """Holds what the file says of how much each row counts (`WeightColumns`); None where it says nothing."""

    def side(self, side: Side) -> pl.DataFrame:
        """Return the raw features of one side."""
        return self.user if side == "user" else self.item


def read_labels(column: pl.Series, reading: LabelReading, rows_N: npt.NDArray[np.int64], bad: BadRows) -> pl.Series:
    """Return labels 0 and 1, null where there is none, and record the rows without one.

    Args:
        rows_N: the numbers of the rows.

    Raises:
        DataError: the column holds something else than labels, such as ratings; the message proposes a threshold.
    """
    labels = reading.read(column, bad.seen)
    absent = labels.is_null()
    if not absent.any():
        return labels
    if int(absent.sum()) > MOSTLY_NO_LABEL * len(labels) and reading.positive is None:
        proposal = label_threshold(column)
        if proposal:
            raise DataError(f"{bad.source}: {column.name} {proposal}")
    reason = reading.describe(column.name)
    if reason not in bad.advice:
        bad.advice[reason] = reading.advice(column)
    bad.add(reason, rows_N[absent.to_numpy()])
    return labels


def read_times(
    column: pl.Series, form: TimeForm, good: pl.Series, rows_N: npt.NDArray[np.int64], bad: BadRows
) -> pl.Series:
    """Return times as seconds since 1970, null where there is none, and record the rows without one.

    Args:
        good: flags of the rows that are not bad for another reason, of which alone is recorded.
        rows_N: the numbers of the rows.

    Raises:
        DataError: numbers that are no dates differ by fractions, which whole seconds cannot keep apart.
    """
    seconds = seconds_of(column, form)
    timed = (seconds.abs() < INT64_MAX).fill_null(False)
    untimed_N = (good & ~timed).to_numpy()
    if untimed_N.any():
        day_first_N = has_day_first(column).to_numpy() & untimed_N
        others_N = untimed_N & ~day_first_N
        distant_N = seconds_of(column, form._replace(is_dated=False)).is_not_null().to_numpy() & others_N
        reasons = {
            "has the day or the month first, nobody knows which: write 2026-11-05": day_first_N,
            "is before 1970 or after 2100, as placeholders are": distant_N,
            f"is no number and no ISO 8601 time: {HOW_TO_WRITE}": others_N & ~distant_N,
        }
        for reason, flags_N in reasons.items():
            bad.add(f"{column.name} {reason}", rows_N[flags_N])
    if not form.is_dated:
        whole = seconds.floor()
        if (seconds != whole).any() and whole.n_unique() < seconds.n_unique():
            raise DataError(
                f"{bad.source}: {column.name} counts in fractions, and rows are ordered by whole numbers: "
                "multiply it, or write dates"
            )
    return seconds.set(~timed, None)
