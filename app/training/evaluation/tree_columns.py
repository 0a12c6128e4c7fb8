"""Make the columns that trees are fitted to from slots: numbers, codes of categories, and frequent values of lists."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.features.fields import SIDES, MultiCategorical, Numeric
from app.features.schema import FeatureSchema
from app.training.preprocessing.encode import EncodedRows

Matrix = npt.NDArray[np.float64]
MAX_ONE_HOT = 40
"""Trees are fitted on this many of the most frequent values of a multi-valued field, one column each."""
UNKNOWN = -1
"""Code of a category that the training rows do not have."""


class TreeColumns:
    """Makes columns [N, C] of rows. Codes and frequent values are those of the training rows that it is made with."""

    def __init__(self, schema: FeatureSchema, train: EncodedRows) -> None:
        self._schema = schema
        self._keys: dict[str, npt.NDArray[np.int64]] = {}
        """Maps a field's name to its keys: of a category all, sorted, of a list the most frequent."""
        self.categories: list[int] = []
        """Numbers of the columns that hold codes of categories."""
        width = 0
        for side in SIDES:
            slots = train.side(side)
            for field, span in schema.layout(side):
                if isinstance(field, Numeric):
                    width += 1
                elif isinstance(field, MultiCategorical):
                    keys, counts = np.unique(slots.keys[:, span][slots.values[:, span] != 0], return_counts=True)
                    self._keys[field.name] = keys[np.argsort(-counts, kind="stable")[:MAX_ONE_HOT]]
                    width += len(self._keys[field.name])
                else:
                    self._keys[field.name] = np.unique(slots.keys[:, span.start])
                    self.categories.append(width)
                    width += 1

    def of(self, data: EncodedRows) -> Matrix:
        """Return the columns [N, C] of these rows; a missing number is NaN."""
        columns: list[npt.NDArray[np.floating]] = []
        for side in SIDES:
            slots = data.side(side)
            for field, span in self._schema.layout(side):
                if isinstance(field, Numeric):
                    columns.append(slots.values[:, span.start])
                elif isinstance(field, MultiCategorical):
                    weights = slots.values[:, span]
                    frequent = self._keys[field.name]
                    columns.extend(np.where(slots.keys[:, span] == key, weights, 0).sum(1) for key in frequent)
                else:
                    vocabulary, keys_N = self._keys[field.name], slots.keys[:, span.start]
                    code = np.searchsorted(vocabulary, keys_N).clip(max=len(vocabulary) - 1)
                    columns.append(np.where(vocabulary[code] == keys_N, code, UNKNOWN).astype(np.float64))
        return np.stack(columns, 1).astype(np.float64)
