"""`RowWeights`: how much each row of a dataset counts, in training and in metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from app.training.evaluation.weighting import Weighting

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RowWeights:
    """Holds the weights of N rows, all above 0."""

    training_N: Weights
    """Says how much a row counts in the loss, in calibration and where baselines are fitted."""
    evaluation_N: Weights
    """Says how much a row counts in metrics: for how many rows it stands, those that were left out among them."""
    note: str
    """Says in a sentence where the weights come from."""
    negative_rate: float = 1.0
    """The share R of the rows without a click that were kept, as the rows that are trained on have it."""
    units_N: npt.NDArray[np.int64] | None = None
    """Numbers the rows of the file of which these are the impressions with and without a click, counted; None where a
    row is one impression. Halves of one row belong to one part of every split."""

    def take(self, index: npt.NDArray[np.int64] | slice) -> RowWeights:
        """Return the weights of the rows at these positions."""
        return replace(
            self,
            training_N=self.training_N[index],
            evaluation_N=self.evaluation_N[index],
            units_N=None if self.units_N is None else self.units_N[index],
        )

    @property
    def in_training(self) -> Weighting:
        """Return the weights of the rows as they are learned from."""
        return self._weighting(self.training_N)

    @property
    def in_evaluation(self) -> Weighting:
        """Return the weights of the rows as they are measured."""
        return self._weighting(self.evaluation_N)

    @property
    def negatives_offset(self) -> float:
        """Return ln R, by which log odds among the rows that were kept are above those among all."""
        return math.log(self.negative_rate)

    def _weighting(self, weights_N: Weights) -> Weighting:
        weights = weights_N.astype(np.float64)
        return Weighting(weights, np.square(weights) / (1.0 if self.units_N is None else self.training_N))


def row_weights(
    labels_N: npt.NDArray[np.float32],
    weights_N: Weights | None,
    rates_N: Weights | float | None,
    note: str,
    units_N: npt.NDArray[np.int64] | None = None,
) -> RowWeights:
    """Return the weights of rows.

    Rows without a click of which a share r_i was kept stand for 1 / r_i each, in metrics. In training they count
    R / r_i, 1 on average, as if the same share R of all had been kept: R is the harmonic mean of the r_i.

    Args:
        weights_N: what a row counts by itself; None stands for 1. Where it does not count impressions its unit says
            nothing, and it is divided by its mean.
        rates_N: the share r_i of the rows like this one that were kept; it is not looked at where there is a click.
        note: says in a sentence where the weights come from.
        units_N: numbers the rows of the file where weights count their impressions.
    """
    own_N = np.ones(len(labels_N)) if weights_N is None else weights_N.astype(np.float64)
    if units_N is None:
        own_N = own_N / own_N.mean()
    kept_N = np.where(labels_N > 0.5, 1.0, 1.0 if rates_N is None else rates_N).astype(np.float64)
    is_negative_N = labels_N <= 0.5
    negatives = float(own_N[is_negative_N].sum())
    rate = negatives / float((own_N / kept_N)[is_negative_N].sum()) if negatives else 1.0
    evaluation_N = own_N / kept_N
    training_N = np.where(is_negative_N, evaluation_N * rate, own_N)
    return RowWeights(training_N.astype(np.float32), evaluation_N.astype(np.float32), note, rate, units_N)
