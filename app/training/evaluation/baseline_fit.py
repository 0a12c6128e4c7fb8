"""Hold a fitted baseline: how it predicts, and what is to be said of its fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.sampling import take_rows

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BaselineFit:
    """Predicts probabilities [N] of rows, given as slots and as table rows, and says how it was fitted."""

    predict: Callable[[EncodedRows, ExpandedRows], Probabilities]
    note: str
    """Says what was chosen, and whether the solver has converged."""

    def predict_in_chunks(self, encoded: EncodedRows, rows: ExpandedRows, chunk_rows: int) -> Probabilities:
        """Return the probabilities [N], so many rows at a time."""
        chunks = (slice(start, start + chunk_rows) for start in range(0, len(encoded.labels_N), chunk_rows))
        return np.concatenate([self.predict(take_rows(encoded, chunk), rows.take(chunk)) for chunk in chunks])


def fit_constant(train: EncodedRows) -> BaselineFit:
    """Return the baseline that predicts the share of clicks of the training rows, whatever the row."""
    weights = train.weights
    share = float(train.labels_N.mean() if weights is None else weights.in_training.mean(train.labels_N))
    return BaselineFit(lambda encoded, rows: np.full(len(encoded.labels_N), share), f"share of clicks {share:.5f}")
