"""Compute the click rates of keys, smoothed towards the rate of all rows.

The weight m of the prior is the empirical Bayes one, of each kind of key by itself: a beta-binomial with the mean p and
the spread that the keys' rates show beyond chance (Kleinman 1973, the weighted moment estimator). Keys whose rates
differ no more than chance explains, or less, get rates next to the prior: sampled negatives, as many for each user,
leave no trace.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.models.target_statistics import MAX_RATE
from app.training.preprocessing.expand import ExpandedRows

Floats = npt.NDArray[np.floating]
Counts = npt.NDArray[np.int64]

MIN_PRIOR_WEIGHT, MAX_PRIOR_WEIGHT = 1.0, 1e4


def deal_folds(rows: int, folds: int, seed: int, units_N: Counts | None = None) -> Counts:
    """Return a fold of each row at random [N], of about equal size.

    Args:
        units_N: numbers what belongs together, and so to one fold; None stands for rows by themselves.
    """
    generator = np.random.default_rng(seed)
    if units_N is None:
        return generator.permutation(rows) % folds
    units, unit_N = np.unique(units_N, return_inverse=True)
    return np.asarray((generator.permutation(len(units)) % folds)[unit_N])


def example_weights(rows: ExpandedRows) -> Floats:
    """Return how much each row counts [N], in float64."""
    if rows.weights_N is None:
        return np.ones(len(rows.labels_N))
    return np.asarray(rows.weights_N.numpy().astype(np.float64))


def out_of_fold(keys_N: Counts, labels_N: Floats, folds_N: Counts, weights_N: Floats) -> tuple[Floats, Floats]:
    """Return the rate that each row's key has in the other folds, and the weight of its rows there."""
    _, key_N = np.unique(keys_N, return_inverse=True)
    keys, folds = int(key_N.max(initial=-1)) + 1, int(folds_N.max(initial=-1)) + 1
    cell_N = key_N * folds + folds_N
    rows_VQ = np.bincount(cell_N, weights_N, keys * folds).reshape(keys, folds)
    clicks_VQ = np.bincount(cell_N, weights_N * labels_N, keys * folds).reshape(keys, folds)
    others_VQ = rows_VQ.sum(1, keepdims=True) - rows_VQ
    rate_VQ = np.stack(
        [
            smoothed_rates(clicks_V, others_V)
            for clicks_V, others_V in zip((clicks_VQ.sum(1, keepdims=True) - clicks_VQ).T, others_VQ.T, strict=True)
        ],
        1,
    )
    return rate_VQ[key_N, folds_N], others_VQ[key_N, folds_N]


def smoothed_rates(clicks_V: Floats, rows_V: Floats) -> Floats:
    """Return the smoothed log odds of each key less those of all rows, clipped to `MAX_RATE`."""
    clicks, rows = float(clicks_V.sum()), float(rows_V.sum())
    p = (clicks + 0.5) / (rows + 1)  # never 0 or 1
    weight = prior_weight(clicks_V, rows_V)
    rate_V = (clicks_V + weight * p) / (rows_V + weight)
    rate: Floats = (np.log(rate_V / (1 - rate_V)) - np.log(p / (1 - p))).clip(-MAX_RATE, MAX_RATE)
    return rate


def prior_weight(clicks_V: Floats, rows_V: Floats) -> float:
    """Return m, the rows that the prior counts for: 1 / rho - 1, rho the intraclass correlation (Kleinman 1973)."""
    present = rows_V > 0
    clicks_V, rows_V = clicks_V[present], rows_V[present]
    rows, keys = float(rows_V.sum()), len(rows_V)
    p = float(clicks_V.sum()) / rows if rows else 0.0
    chance = p * (1 - p)
    within = rows - float(np.square(rows_V.astype(np.float64)).sum()) / rows - (keys - 1) if rows else 0.0
    if chance <= 0 or within <= 0:
        return MAX_PRIOR_WEIGHT
    spread = float((rows_V * np.square(clicks_V / rows_V - p)).sum()) / chance
    correlation = (spread - (keys - 1)) / within
    return float(np.clip(1 / max(correlation, 1e-12) - 1, MIN_PRIOR_WEIGHT, MAX_PRIOR_WEIGHT))
