"""Fit preprocessing to the training rows: which categories get a table row, and the scale of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from app.features.fields import SIDES, Side
from app.features.schema import FeatureSchema
from app.features.slots import EMPTY_KEY, Values
from app.models.preprocessing import Preprocessing, numeric_key
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.key_counts import KeyCounts
from app.training.preprocessing.numeric_statistics import fit_numerics
from app.training.preprocessing.target_statistics import TargetStatistics, TargetStatisticsFit


@dataclass(frozen=True)
class PreprocessingFit:
    """Fits vocabulary and numeric statistics; a category that occurs `min_count` times gets a table row of its own."""

    min_count: int = 2
    target_statistics: TargetStatistics = "none"
    """Which target statistics the model has as numbers."""

    def fit(self, schema: FeatureSchema, train: EncodedRows, group: ProcessGroup = SINGLE_PROCESS) -> Preprocessing:
        """Fit in one pass over the slots for the categories and two over the numbers, in chunks. Counts are exact.

        Args:
            group: the processes that have these rows, of which each goes over its own slice; all get the same result.
        """
        own_rows = group.own_slice(len(train.labels_N))
        counts = KeyCounts(train.scratch_folder)
        numerics = {}
        for side in SIDES:
            layout = schema.layout(side)
            columns = np.array([layout.slots[field.name].start for field in layout.numerics], np.int64)
            categorical = np.delete(np.arange(layout.width), columns)
            for keys, values in train.slot_chunks(side, own_rows) if len(categorical) else ():
                counts.add(keys[:, categorical][values[:, categorical] != 0.0])

            def number_chunks(side: Side = side, columns: npt.NDArray[np.int64] = columns) -> Iterator[Values]:
                return (values[:, columns] for _, values in train.slot_chunks(side, own_rows))

            numerics.update(fit_numerics(layout.numerics, number_chunks, group.all_gather))
        fixed = [EMPTY_KEY, *(numeric_key(name) for name in numerics)]
        vocabulary = np.union1d(counts.at_least(self.min_count, group.all_gather), np.array(fixed, np.int64))
        return Preprocessing(schema, torch.from_numpy(vocabulary), numerics)

    def extend(
        self,
        preprocessing: Preprocessing,
        rows: dict[str, ExpandedRows],
        *,
        across: bool,
        seed: int,
        like: Preprocessing | None = None,
    ) -> tuple[Preprocessing, dict[str, ExpandedRows]]:
        """Learn target statistics, if any are wanted, and add their numbers to the rows of each part.

        Args:
            across: whether the model reads statistics of pairs across sides.
            like: preprocessing whose statistics to learn, of these rows; None chooses them.
        """
        if self.target_statistics == "none":
            return preprocessing, rows
        known = None if like is None else like.statistic_pairs
        return TargetStatisticsFit(self.target_statistics, seed, across, known=known).extend(preprocessing, rows)
