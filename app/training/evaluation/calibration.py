"""Fit Platt scaling on the validation part: two numbers that make probabilities match the observed clicks.

    p = sigmoid(a * logit + b)                                                              (Platt 1999, eq. 1)

The model keeps (a, b) in `calibration_2`, so they are in the artifact and every score that is served is calibrated.
a > 0 changes no order: AUC is what it was.

`auto`, the default, scales only where the cross-fitted log loss of the validation part falls by more than its standard
error. docs/training.md measures that it chooses well.

The validation part also chose the best epoch, so its own log loss is a little too good, before and after; two numbers
fitted on thousands of rows add next to nothing to that. What calibration is worth is read from the test part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from app.models.base import CtrModel
from app.training.evaluation.reliability import Floats

Method = Literal["auto", "platt", "none"]
FOLDS = 5
MIN_GAIN = 1.0
"""For `auto` the cross-fitted log loss must fall by this many standard errors: the one-standard-error rule."""
MAX_STEPS = 100
MAX_SLOPE = 10.0
"""A larger slope comes from a model that has hardly learned, and would multiply the rounding of its logits."""
TOLERANCE = 1e-9
RIDGE = 1e-12
"""This term keeps the Hessian invertible if all logits are equal."""


@dataclass(frozen=True)
class Calibration:
    """Holds the numbers (a, b), and how they were chosen. The defaults are the identity."""

    slope: float = 1.0
    offset: float = 0.0
    method: Literal["platt", "none"] = "none"
    """Tells whether the numbers were fitted (`platt`) or are the identity (`none`)."""
    gain: float = 0.0
    """Tells by how many standard errors scaling lowers the cross-fitted log loss of the validation part."""

    def apply(self, model: CtrModel) -> None:
        """Put the two numbers into the model, in place."""
        with torch.no_grad():
            model.calibration_2.copy_(torch.tensor([self.slope, self.offset]))

    def probabilities(self, logits_N: Floats) -> npt.NDArray[np.float64]:
        """Return the calibrated probabilities [N]."""
        return sigmoid(self.slope * logits_N.astype(np.float64) + self.offset)


def fit_calibration(method: Method, logits_N: Floats, labels_N: Floats, seed: int = 0) -> Calibration:
    """Fit the numbers to logits [N] and labels [N].

    Return the identity for `none`, where `auto` finds no gain, and for a slope that reverses the order or is too large.

    Args:
        seed: seeds the folds that the gain is measured with.
    """
    gain = cross_fitted_gain(logits_N, labels_N, seed)
    if method == "none" or (method == "auto" and gain <= MIN_GAIN):
        return Calibration(gain=gain)
    slope, offset = fit_platt(logits_N, labels_N)
    return Calibration(slope, offset, "platt", gain) if 0 < slope <= MAX_SLOPE else Calibration(gain=gain)


def cross_fitted_gain(logits_N: Floats, labels_N: Floats, seed: int = 0) -> float:
    """Return the fall of the log loss of rows that scaling was not fitted on, in standard errors of the difference."""
    if len(labels_N) < 2 * FOLDS:
        return 0.0
    fold_N = np.random.default_rng(seed).permutation(len(labels_N)) % FOLDS
    z_N = logits_N.astype(np.float64)
    scaled_N = np.empty_like(z_N)
    for fold in range(FOLDS):
        slope, offset = fit_platt(z_N[fold_N != fold], labels_N[fold_N != fold])
        scaled_N[fold_N == fold] = slope * z_N[fold_N == fold] + offset
    fall_N = _losses(z_N, labels_N) - _losses(scaled_N, labels_N)
    error = float(fall_N.std() / math.sqrt(len(fall_N)))
    return float(fall_N.mean()) / error if error > 0 else 0.0


def fit_platt(logits_N: Floats, labels_N: Floats) -> tuple[float, float]:
    """Return (a, b) of least log loss, by Newton's method with backtracking (Lin, Lin & Weng 2007, algorithm 1).

    The targets are Platt's (N+ + 1) / (N+ + 2) and 1 / (N- + 2) instead of 1 and 0, so that there is a finite answer
    where a threshold separates the labels.
    """
    z_N, labels_N = logits_N.astype(np.float64), labels_N.astype(np.float64)
    clicks = float(labels_N.sum())
    others = len(labels_N) - clicks
    target_N = np.where(labels_N > 0.5, (clicks + 1) / (clicks + 2), 1 / (others + 2))
    ab_2 = np.array([0.0, math.log((clicks + 1) / (others + 1))])
    design_N2 = np.stack([z_N, np.ones_like(z_N)], 1)
    loss = _loss(design_N2 @ ab_2, target_N)
    for _ in range(MAX_STEPS):
        p_N = sigmoid(design_N2 @ ab_2)
        gradient_2 = design_N2.T @ (p_N - target_N) / len(z_N)
        if np.abs(gradient_2).max() < TOLERANCE:
            break
        hessian_22 = (design_N2 * (p_N * (1 - p_N))[:, None]).T @ design_N2 / len(z_N) + RIDGE * np.eye(2)
        step_2 = np.linalg.solve(hessian_22, gradient_2)
        size = 1.0
        while size > 1e-10:
            new_loss = _loss(design_N2 @ (ab_2 - size * step_2), target_N)
            if new_loss < loss - 1e-4 * size * float(gradient_2 @ step_2):
                break
            size /= 2
        else:
            break  # no step improves within the accuracy of float64
        ab_2, loss = ab_2 - size * step_2, new_loss
    return float(ab_2[0]), float(ab_2[1])


def sigmoid(z_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 1 / (1 + exp(-z)) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -z_N)))


def _loss(z_N: npt.NDArray[np.float64], target_N: npt.NDArray[np.float64]) -> float:
    return float(_losses(z_N, target_N).mean())


def _losses(z_N: npt.NDArray[np.float64], target_N: Floats) -> npt.NDArray[np.float64]:
    """Return the binary cross-entropy of each row, in nats."""
    return np.asarray(np.logaddexp(0.0, z_N) - target_N * z_N)
