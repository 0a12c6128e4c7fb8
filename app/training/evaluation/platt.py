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


def fit_platt(logits_N: Floats, labels_N: Floats) -> tuple[float, float]:
    """Return (a, b) of least log loss, by Newton's method with backtracking (Lin, Lin & Weng 2007, algorithm 1)."""
    z_N, target_N = logits_N.astype(np.float64), platt_targets(labels_N)
    ab_2 = np.array([0.0, log_odds(float(target_N.mean()))])
    design_N2 = np.stack([z_N, np.ones_like(z_N)], 1)
    loss = float(log_losses(design_N2 @ ab_2, target_N).mean())
    for _ in range(MAX_STEPS):
        p_N = sigmoid(design_N2 @ ab_2)
        gradient_2 = design_N2.T @ (p_N - target_N) / len(z_N)
        if np.abs(gradient_2).max() < TOLERANCE:
            break
        hessian_22 = (design_N2 * (p_N * (1 - p_N))[:, None]).T @ design_N2 / len(z_N) + RIDGE * np.eye(2)
        step_2 = np.linalg.solve(hessian_22, gradient_2)
        size = 1.0
        while size > 1e-10:
            new_loss = float(log_losses(design_N2 @ (ab_2 - size * step_2), target_N).mean())
            if new_loss < loss - 1e-4 * size * float(gradient_2 @ step_2):
                break
            size /= 2
        else:
            break  # no step improves within the accuracy of float64
        ab_2, loss = ab_2 - size * step_2, new_loss
    return float(ab_2[0]), float(ab_2[1])


def fit_offset(logits_N: Floats, labels_N: Floats, slope: float = 1.0) -> float:
    """Return b of least log loss for a given a: with it the predictions add up to the targets."""
    return fit_level(logits_N, float(platt_targets(labels_N).mean()), slope)


def fit_level(logits_N: Floats, mean: float, slope: float = 1.0) -> float:
    """Return b with which the predictions' mean is this one, for a given a."""
    z_N, level = slope * logits_N.astype(np.float64), log_odds(mean)
    # The sum rises with b; where every a z + b is below (above) the log odds it is below (above) the mean's.
    lowest, highest = level - float(z_N.max()) - 1, level - float(z_N.min()) + 1
    return float(brentq(lambda offset: float(sigmoid(z_N + offset).mean()) - mean, lowest, highest))


def platt_targets(labels_N: Floats) -> npt.NDArray[np.float64]:
    """Return (N+ + 1) / (N+ + 2) for each click and 1 / (N- + 2) for each other row, [N] (Platt 1999, section 2.2).

    They stand for 1 and 0, so that there is a finite answer where a threshold separates the labels, or all are equal.
    """
    clicks = float(labels_N.sum())
    others = len(labels_N) - clicks
    return np.where(labels_N > 0.5, (clicks + 1) / (clicks + 2), 1 / (others + 2))


def sigmoid(z_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 1 / (1 + exp(-z)) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -z_N)))


def log_losses(z_N: npt.NDArray[np.float64], target_N: Floats) -> npt.NDArray[np.float64]:
    """Return the binary cross-entropy of each row, in nats."""
    return np.asarray(np.logaddexp(0.0, z_N) - target_N * z_N)


def log_odds(share: float) -> float:
    """Return the log odds of a share, which must lie between 0 and 1."""
    return math.log(share / (1 - share))
