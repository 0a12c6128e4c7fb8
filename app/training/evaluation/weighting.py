"""Count rows by weights: means, and how sure they are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
NAN = float("nan")


class Weighting(NamedTuple):
    """Says how much each of N rows counts, and how much of a mean's error is its own."""

    weights_N: Floats
    squares_N: Floats
    """Sums the squares of the weights of the single impressions of a row: w^2 of one, n of n that count 1 each."""

    @property
    def effective_rows(self) -> float:
        """Return (sum w)^2 / sum w^2: the number of equal rows that tell as much (Kish 1965, section 11.7)."""
        total, squares = float(self.weights_N.sum()), float(self.squares_N.sum())
        return total * total / squares if squares > 0 else 0.0

    def of(self, flags_N: npt.NDArray[np.bool_]) -> Weighting:
        """Return the weights of the rows with a flag."""
        return Weighting(self.weights_N[flags_N], self.squares_N[flags_N])

    def mean(self, values_N: Floats) -> float:
        """Return the weighted mean."""
        return float((self.weights_N * values_N).sum() / self.weights_N.sum())

    def mean_and_error(self, values_N: Floats) -> tuple[float, float]:
        """Return the weighted mean and its standard error, NaN for fewer than two effective rows.

        The error is that of a ratio of sums (Cochran 1977, section 2.11); with equal weights it is the usual one.
        """
        mean, rows = self.mean(values_N), self.effective_rows
        if rows < 2 - 1e-9:
            return mean, NAN
        spread = float((self.squares_N * np.square(values_N - mean)).sum()) * rows / (rows - 1)
        return mean, math.sqrt(spread) / float(self.weights_N.sum())


def equal_weights(rows: int) -> Weighting:
    """Return weights of 1."""
    ones_N = np.ones(rows)
    return Weighting(ones_N, ones_N)
