"""`RowWeights`: how much each row of a dataset counts, in training and in metrics."""

from __future__ import annotations

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
    """Says how much a row counts in metrics."""
    note: str
    """Says in a sentence where the weights come from."""

    def take(self, index: npt.NDArray[np.int64] | slice) -> RowWeights:
        """Return the weights of the rows at these positions."""
        return replace(self, training_N=self.training_N[index], evaluation_N=self.evaluation_N[index])

    @property
    def in_training(self) -> Weighting:
        """Return the weights of the rows as they are learned from."""
        return self._weighting(self.training_N)

    @property
    def in_evaluation(self) -> Weighting:
        """Return the weights of the rows as they are measured."""
        return self._weighting(self.evaluation_N)

    def _weighting(self, weights_N: Weights) -> Weighting:
        weights = weights_N.astype(np.float64)
        return Weighting(weights, np.square(weights))


def weights_of_column(name: str, weights_N: Weights) -> RowWeights:
    """Return the weights of a column, divided by their mean: their unit says nothing."""
    equalised_N = (weights_N / weights_N.mean(dtype=np.float64)).astype(np.float32)
    return RowWeights(equalised_N, equalised_N, f"each row counts as its {name} says")
