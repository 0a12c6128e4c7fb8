"""Hold rows out for validation and test: the newest, the newest of each group, or some at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.errors import ConfigError, DataError
from app.features.fields import Side
from app.training.data.dataset import Dataset
from app.training.data.split_choice import Codes, SplitChoice, choose_by_test_rows, group_codes, newest_of_each

SplitKind = Literal["auto", "time", "random"]
MIN_ROWS = 2
PARTS = ("train", "validation", "test")
HELD_OUT = PARTS[1:]


@dataclass(frozen=True)
class SplitConfig:
    """Says how rows are split into `PARTS`."""

    kind: SplitKind = "auto"
    """`auto` holds out the newest rows if rows have a time; with a test file, those that resemble its rows."""
    validation: float = 0.1
    test: float = 0.1
    """Share of the rows that is held out for the test part if no test file is given."""
    seed: int = 0

    def parts(
        self, data: Dataset, test: Dataset | None, choice: SplitChoice | None = None
    ) -> tuple[Dataset, Dataset, Dataset]:
        """Return the training, validation and test part.

        Args:
            choice: what `choose` returns for these rows; None calls it.

        Raises:
            ConfigError: a split by time was asked for and the rows have none.
            DataError: too few rows, or a training part with one class.
        """
        choice = choice or self.choose(data, test)
        if test is None:
            data, test = hold_out(data, self.test, choice, self.seed)
        train, validation = hold_out(data, self.validation, choice, self.seed)
        for name, part in (("training", train), ("validation", validation), ("test", test)):
            if len(part) < MIN_ROWS or part.labels_N.min() == part.labels_N.max():
                held = f", all with label {part.labels_N[0]:.0f}" if len(part) else ""
                raise DataError(
                    f"{data.source}: the {name} part has {len(part)} rows{held}: all of one class; "
                    "give more rows, or split at random"
                )
        return train, validation, test

    def choose(self, data: Dataset, test: Dataset | None) -> SplitChoice:
        """Return which rows are held out, and why.

        Raises:
            ConfigError: they should be split by a time they lack.
            DataError: the test rows are older than the training rows, and no split at random was asked for.
        """
        times_N = data.timestamps_N
        if self.kind == "time" and times_N is None:
            raise ConfigError("a split by time needs rows with a time; name the column with --timestamp")
        by_test_rows = None if test is None else choose_by_test_rows(data, test)
        if self.kind != "auto":
            if by_test_rows and by_test_rows.warning and self.kind == "time":
                raise DataError(f"{data.source}: {by_test_rows.warning}")
            return SplitChoice(self.kind, "as asked for", warning=by_test_rows.warning if by_test_rows else "")
        if by_test_rows and by_test_rows.warning:
            raise DataError(f"{data.source}: {by_test_rows.warning}; --split random tests on them all the same")
        if by_test_rows:
            return by_test_rows
        if times_N is None or times_N.min() == times_N.max():
            return SplitChoice("random", "the rows have no time" if times_N is None else "the rows have one time")
        return SplitChoice("time", "the rows have a time")


def hold_out(data: Dataset, share: float, choice: SplitChoice, seed: int) -> tuple[Dataset, Dataset]:
    """Return the rows that stay and the rows that are held out, at least one, each in their old order."""
    held_out = _whole_units(data, share, choice, seed)
    stays = np.ones(len(data), np.bool_)
    stays[held_out] = False
    return data.take(np.flatnonzero(stays)), data.take(held_out)


def _whole_units(data: Dataset, share: float, choice: SplitChoice, seed: int) -> Codes:
    """Return the positions of this share of the rows; both halves of a row that counts impressions, or neither."""
    units_N = None if data.weights is None else data.weights.units_N
    if units_N is None:
        return _held_out(data, max(1, round(share * len(data))), choice, seed)
    units, first = np.unique(units_N, return_index=True)
    held_out = _held_out(data.take(first), max(1, round(share * len(units))), choice, seed)
    return np.flatnonzero(np.isin(units_N, units[held_out]))


def _held_out(data: Dataset, rows: int, choice: SplitChoice, seed: int) -> Codes:
    if choice.kind == "random" or data.timestamps_N is None:
        return np.sort(np.random.default_rng(seed).permutation(len(data))[-rows:])
    if choice.kind == "group" and choice.field is not None:
        side: Side = "user" if choice.field in data.user.columns else "item"
        codes = group_codes(data, None, side, choice.field)
        if codes is not None:
            return newest_of_each(codes[0], data.timestamps_N, rows, seed)
    return np.sort(np.argsort(data.timestamps_N, kind="stable")[-rows:])
