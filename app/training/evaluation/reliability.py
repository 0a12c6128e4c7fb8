"""Measure how far predicted probabilities are from observed shares of clicks, by bins of about equal size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
BINS = 15
"""A reliability diagram and ECE have this many bins."""


@dataclass(frozen=True)
class Reliability:
    """Holds mean prediction, share of clicks and rows of bins of about equal size, [G] each."""

    predicted_G: npt.NDArray[np.float64]
    observed_G: npt.NDArray[np.float64]
    rows_G: npt.NDArray[np.int64]

    @property
    def ece(self) -> float:
        """Return the expected calibration error: mean |predicted - observed| weighted by rows (Naeini et al. 2015)."""
        gaps_G = np.abs(self.predicted_G - self.observed_G)
        return float((gaps_G * self.rows_G).sum() / self.rows_G.sum())


def reliability(labels_N: Floats, probabilities_N: Floats, bins: int = BINS) -> Reliability:
    """Put predictions [N] into bins between quantiles, so that none is nearly empty; equal predictions share a bin."""
    p_N = probabilities_N.astype(np.float64)
    borders = np.unique(np.quantile(p_N, np.linspace(0, 1, bins + 1)[1:-1]))
    bin_N = np.searchsorted(borders, p_N, side="left")
    rows = np.bincount(bin_N, minlength=len(borders) + 1)
    used = rows > 0
    sums = [np.bincount(bin_N, weights, minlength=len(rows))[used] for weights in (p_N, labels_N.astype(np.float64))]
    return Reliability(sums[0] / rows[used], sums[1] / rows[used], rows[used])
