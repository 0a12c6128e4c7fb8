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
    """Holds mean prediction, share of clicks, rows and their weight of bins of about equal size, [G] each."""

    predicted_G: npt.NDArray[np.float64]
    observed_G: npt.NDArray[np.float64]
    rows_G: npt.NDArray[np.int64]
    weights_G: npt.NDArray[np.float64]

    @property
    def ece(self) -> float:
        """Return the expected calibration error: mean |predicted - observed| weighted by rows (Naeini et al. 2015)."""
        gaps_G = np.abs(self.predicted_G - self.observed_G)
        return float((gaps_G * self.weights_G).sum() / self.weights_G.sum())


def reliability(
    labels_N: Floats, probabilities_N: Floats, bins: int = BINS, weights_N: Floats | None = None
) -> Reliability:
    """Put predictions [N] into bins between quantiles, so that none is nearly empty; equal predictions share a bin.

    Args:
        weights_N: how much each row counts, in the quantiles too.
    """
    p_N = probabilities_N.astype(np.float64)
    levels = np.linspace(0, 1, bins + 1)[1:-1]
    borders = np.unique(np.quantile(p_N, levels) if weights_N is None else _weighted_quantiles(p_N, levels, weights_N))
    bin_N = np.searchsorted(borders, p_N, side="left")
    rows = np.bincount(bin_N, minlength=len(borders) + 1)
    used = rows > 0
    w_N = np.ones_like(p_N) if weights_N is None else weights_N.astype(np.float64)
    weight, predicted, observed = (
        np.bincount(bin_N, values, len(rows))[used].astype(np.float64) for values in (w_N, w_N * p_N, w_N * labels_N)
    )
    return Reliability(predicted / weight, observed / weight, rows[used], weight)


def _weighted_quantiles(values_N: Floats, levels: Floats, weights_N: Floats) -> Floats:
    """Return the values below or at which these shares of the weight are."""
    order = np.argsort(values_N, kind="stable")
    below_N = np.cumsum(weights_N[order], dtype=np.float64)
    index = np.searchsorted(below_N, levels * below_N[-1])
    return np.asarray(values_N[order[index.clip(max=len(order) - 1)]])
