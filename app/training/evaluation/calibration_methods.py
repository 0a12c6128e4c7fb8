"""The candidates of calibration: how each is fitted, and what it loses on rows that it was not fitted on."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.training.evaluation.platt import fit_level, fit_offset, fit_platt, log_losses, sigmoid
from app.training.evaluation.reliability import Floats
from app.training.evaluation.weighting import Weighting, equal_weights

FittedMethod = Literal["none", "offset", "platt"]
METHODS: tuple[FittedMethod, ...] = ("none", "offset", "platt")
"""The candidates, the simplest first."""
FOLDS = 5
"""With fewer clicks than folds there are as many folds as clicks."""
LEVEL_ERRORS = 2.0
"""The level is off if the clicks differ from the predicted ones by more than so many standard errors."""
FLAT = 1e-4
"""Standard deviation of calibrated logits that are worth no more than a constant. Around a click rate of 0.5 % float32
has 200 numbers within it, so that the order stays; and the log loss is above the constant's by at most this times
sqrt(p (1 - p)), were clicks to fall with the logits, and by some 1e-8 where they have nothing to do with them."""
MAX_SLOPE = 10.0
"""A larger slope comes from a model that has hardly learned, and would multiply the rounding of its logits."""


def least_slope(logits_N: Floats) -> float:
    """Return the slope that leaves the logits a standard deviation of `FLAT`; 1 where theirs is smaller already."""
    return FLAT / max(float(logits_N.astype(np.float64).std()), FLAT)


def fit_method(method: FittedMethod, logits_N: Floats, labels_N: Floats, weighting: Weighting) -> tuple[float, float]:
    """Return (a, b) of least log loss within the bounds of a: the loss is convex, so that its best is at the bound."""
    weights_N = weighting.weights_N
    if method == "none":
        return 1.0, 0.0
    if method == "offset":
        return 1.0, fit_offset(logits_N, labels_N, weights_N=weights_N)
    slope = min(max(fit_platt(logits_N, labels_N, weights_N)[0], least_slope(logits_N)), MAX_SLOPE)
    return slope, offset_at(slope, logits_N, labels_N, weighting)


def offset_at(slope: float, logits_N: Floats, labels_N: Floats, weighting: Weighting) -> float:
    """Return the b of this a that keeps the level of the logits, or where that is off, fits the labels'."""
    p_N = sigmoid(logits_N.astype(np.float64))
    if _is_level_off(p_N, labels_N, weighting):
        return fit_offset(logits_N, labels_N, slope, weighting.weights_N)
    return fit_level(logits_N, weighting.mean(p_N), slope, weighting.weights_N)


def cross_fitted_losses(
    logits_N: Floats, labels_N: Floats, seed: int = 0, weighting: Weighting | None = None
) -> dict[FittedMethod, npt.NDArray[np.float64]]:
    """Return each candidate's log loss [N] of rows that it was not fitted on; each fold has its share of the clicks."""
    weighting = weighting or equal_weights(len(labels_N))
    fold_N = np.empty(len(labels_N), np.int64)
    generator = np.random.default_rng(seed)
    classes = np.flatnonzero(labels_N > 0.5), np.flatnonzero(labels_N <= 0.5)
    folds = min(FOLDS, *(len(rows) for rows in classes))
    for rows in classes:
        fold_N[rows] = generator.permutation(len(rows)) % folds
    z_N = logits_N.astype(np.float64)
    losses: dict[FittedMethod, npt.NDArray[np.float64]] = {}
    for method in METHODS:
        scaled_N = np.empty_like(z_N)
        for fold in range(folds):
            fitted_N = fold_N != fold
            slope, offset = fit_method(method, z_N[fitted_N], labels_N[fitted_N], weighting.of(fitted_N))
            scaled_N[~fitted_N] = slope * z_N[~fitted_N] + offset
        losses[method] = log_losses(scaled_N, labels_N)
    return losses


def _is_level_off(p_N: npt.NDArray[np.float64], labels_N: Floats, weighting: Weighting) -> bool:
    """Tell whether there are more or fewer clicks than predicted, by more than chance makes of them.

    The number of clicks that independent rows have is spread by the sum of p (1 - p), each times the square of its
    weight. A few dozen of them must not move the level that all training rows gave.
    """
    difference = float(weighting.weights_N @ (labels_N - p_N))
    return abs(difference) > LEVEL_ERRORS * math.sqrt(float(weighting.squares_N @ (p_N * (1 - p_N))))
