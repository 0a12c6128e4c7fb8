"""Hold rows out for validation and test: the newest, or some at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.errors import ConfigError, DataError
from app.training.data.dataset import Dataset

SplitKind = Literal["auto", "time", "random"]
MIN_ROWS = 2
PARTS = ("train", "validation", "test")
HELD_OUT = PARTS[1:]


@dataclass(frozen=True)
class SplitConfig:
    """Says how rows are split into `PARTS`."""

    kind: SplitKind = "auto"
    """`auto` splits by time if rows have one and the rows of the test file, if there is one, are the newest."""
    validation: float = 0.1
    test: float = 0.1
    """Share of the rows that is held out for the test part if no test file is given."""
    seed: int = 0

    def parts(self, data: Dataset, test: Dataset | None) -> tuple[Dataset, Dataset, Dataset]:
        """Return the training, validation and test part.

        Raises:
            ConfigError: a split by time was asked for and the rows have none.
            DataError: too few rows, or a training part with one class.
        """
        kind = self._kind(data, test)
        if test is None:
            data, test = hold_out(data, self.test, kind, self.seed)
        train, validation = hold_out(data, self.validation, kind, self.seed)
        for name, part in (("training", train), ("validation", validation), ("test", test)):
            if len(part) < MIN_ROWS or part.labels_N.min() == part.labels_N.max():
                raise DataError(
                    f"{data.source}: the {name} part has {len(part)} rows, all of one class; "
                    "give more rows, or split at random"
                )
        return train, validation, test

    def _kind(self, data: Dataset, test: Dataset | None) -> Literal["time", "random"]:
        if self.kind == "time" and data.timestamps_N is None:
            raise ConfigError("a split by time needs rows with a time; name the column with --timestamp")
        if self.kind != "auto":
            return self.kind
        if data.timestamps_N is None:
            return "random"
        if test is None or test.timestamps_N is None:
            return "time" if test is None else "random"
        # Validation should resemble the test part: where that is from the future, it is the newest training rows.
        return "time" if test.timestamps_N.min() >= data.timestamps_N.max() else "random"


def hold_out(data: Dataset, share: float, kind: Literal["time", "random"], seed: int) -> tuple[Dataset, Dataset]:
    """Return the rows that stay and the rows that are held out, at least one, each in their old order."""
    held_out = max(1, round(share * len(data)))
    if kind == "time" and data.timestamps_N is not None:
        order = np.argsort(data.timestamps_N, kind="stable")
    else:
        order = np.random.default_rng(seed).permutation(len(data))
    return data.take(np.sort(order[:-held_out])), data.take(np.sort(order[-held_out:]))
