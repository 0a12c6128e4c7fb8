"""Fit p = sigmoid(a * logit + b) by maximum likelihood: both numbers (Platt 1999, eq. 1), or b alone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from app.training.evaluation.reliability import Floats

MAX_STEPS = 100
TOLERANCE = 1e-9
RIDGE = 1e-12
"""This term keeps the Hessian invertible if all logits are equal."""


def fit_platt(logits_N: Floats, labels_N: Floats, weights_N: Floats | None = None) -> tuple[float, float]:
    """Return (a, b) of least log loss, by Newton's method with backtracking (Lin, Lin & Weng 2007, algorithm 1)."""
    z_N, target_N = logits_N.astype(np.float64), platt_targets(labels_N, weights_N)
    share_N = _shares(weights_N, len(z_N))
    ab_2 = np.array([0.0, log_odds(float(share_N @ target_N))])
    design_N2 = np.stack([z_N, np.ones_like(z_N)], 1)
    loss = float(share_N @ log_losses(design_N2 @ ab_2, target_N))
    for _ in range(MAX_STEPS):
        p_N = sigmoid(design_N2 @ ab_2)
        gradient_2 = design_N2.T @ (share_N * (p_N - target_N))
        if np.abs(gradient_2).max() < TOLERANCE:
            break
        hessian_22 = (design_N2 * (share_N * p_N * (1 - p_N))[:, None]).T @ design_N2 + RIDGE * np.eye(2)
        step_2 = np.linalg.solve(hessian_22, gradient_2)
        size = 1.0
        while size > 1e-10:
            new_loss = float(share_N @ log_losses(design_N2 @ (ab_2 - size * step_2), target_N))
            if new_loss < loss - 1e-4 * size * float(gradient_2 @ step_2):
                break
            size /= 2
        else:
            break  # no step improves within the accuracy of float64
        ab_2, loss = ab_2 - size * step_2, new_loss
    return float(ab_2[0]), float(ab_2[1])


def fit_offset(logits_N: Floats, labels_N: Floats, slope: float = 1.0, weights_N: Floats | None = None) -> float:
    """Return b of least log loss for a given a: with it the predictions add up to the targets."""
    mean = float(_shares(weights_N, len(labels_N)) @ platt_targets(labels_N, weights_N))
    return fit_level(logits_N, mean, slope, weights_N)


def fit_level(logits_N: Floats, mean: float, slope: float = 1.0, weights_N: Floats | None = None) -> float:
    """Return b with which the predictions' mean is this one, for a given a."""
    z_N, level, share_N = slope * logits_N.astype(np.float64), log_odds(mean), _shares(weights_N, len(logits_N))
    # The sum rises with b; where every a z + b is below (above) the log odds it is below (above) the mean's.
    lowest, highest = level - float(z_N.max()) - 1, level - float(z_N.min()) + 1
    return float(brentq(lambda offset: float(share_N @ sigmoid(z_N + offset)) - mean, lowest, highest))


def platt_targets(labels_N: Floats, weights_N: Floats | None = None) -> npt.NDArray[np.float64]:
    """Return (N+ + 1) / (N+ + 2) for each click and 1 / (N- + 2) for each other row, [N] (Platt 1999, section 2.2).

    They stand for 1 and 0, so that there is a finite answer where a threshold separates the labels, or all are equal.
    Weights have a mean of about 1, or count: their sums are N+ and N-.
    """
    clicks = float(labels_N.sum() if weights_N is None else labels_N @ weights_N)
    others = float(len(labels_N) if weights_N is None else weights_N.sum()) - clicks
    return np.where(labels_N > 0.5, (clicks + 1) / (clicks + 2), 1 / (others + 2))


def _shares(weights_N: Floats | None, rows: int) -> npt.NDArray[np.float64]:
    """Return weights [N] that add up to 1."""
    return np.full(rows, 1 / rows) if weights_N is None else weights_N.astype(np.float64) / float(weights_N.sum())


def sigmoid(z_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 1 / (1 + exp(-z)) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -z_N)))


def log_losses(z_N: npt.NDArray[np.float64], target_N: Floats) -> npt.NDArray[np.float64]:
    """Return the binary cross-entropy of each row, in nats."""
    return np.asarray(np.logaddexp(0.0, z_N) - target_N * z_N)


def log_odds(share: float) -> float:
    """Return the log odds of a share, which must lie between 0 and 1."""
    return math.log(share / (1 - share))
