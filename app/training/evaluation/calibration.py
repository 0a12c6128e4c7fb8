"""Platt scaling: two numbers that make a trained model's probabilities add up, fitted on the validation part.

    p = sigmoid(a * logit + b)                                                              (Platt 1999, eq. 1)

The model keeps (a, b) in `calibration_2`, so they are in the artifact and every score that is served has been through
them. a > 0 changes no order: AUC is what it was.

`auto`, the default, asks first whether that is worth anything: it scales only where the log loss of the validation
part, cross-fitted, falls by more than its standard error. That it chooses well is measured in docs/training.md.

The validation part also chose the best epoch, so its own log loss is a little too good, before and after; two numbers
fitted on thousands of rows add next to nothing to that. What calibration is worth is read from the test part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from app.models.base import CtrModel

Floats = npt.NDArray[np.floating[Any]]
Method = Literal["auto", "platt", "none"]
FOLDS = 5
MIN_GAIN = 1.0
"""Standard errors by which `auto` wants the cross-fitted log loss to fall: the one-standard-error rule."""
MAX_STEPS = 100
MAX_SLOPE = 10.0
"""More is asked for by a model that has hardly learned, and would multiply the rounding of its logits."""
TOLERANCE = 1e-9
RIDGE = 1e-12
"""Keeps the Hessian invertible where all logits are equal."""
BINS = 15
"""Of a reliability diagram and of ECE."""


@dataclass(frozen=True)
class Calibration:
    slope: float = 1.0
    offset: float = 0.0
    method: Literal["platt", "none"] = "none"
    """What was done."""
    gain: float = 0.0
    """By which scaling lowers the cross-fitted log loss of the validation part, in standard errors."""

    def apply(self, model: CtrModel) -> None:
        """Put the two numbers into the model, in place."""
        with torch.no_grad():
            model.calibration_2.copy_(torch.tensor([self.slope, self.offset]))

    def probabilities(self, logits_N: Floats) -> npt.NDArray[np.float64]:
        return sigmoid(self.slope * logits_N.astype(np.float64) + self.offset)


def fit(method: Method, logits_N: Floats, labels_N: Floats, seed: int = 0) -> Calibration:
    """The identity for `none`, where `auto` finds no gain, and for a slope that turns the order round or is too large.

    Args:
        seed: of the folds.
    """
    gain = cross_fitted_gain(logits_N, labels_N, seed)
    if method == "none" or (method == "auto" and gain <= MIN_GAIN):
        return Calibration(gain=gain)
    slope, offset = platt(logits_N, labels_N)
    return Calibration(slope, offset, "platt", gain) if 0 < slope <= MAX_SLOPE else Calibration(gain=gain)


def cross_fitted_gain(logits_N: Floats, labels_N: Floats, seed: int = 0) -> float:
    """By how much scaling lowers the log loss of rows it was not fitted on, in standard errors of that difference."""
    if len(labels_N) < 2 * FOLDS:
        return 0.0
    fold_N = np.random.default_rng(seed).permutation(len(labels_N)) % FOLDS
    z_N = logits_N.astype(np.float64)
    scaled_N = np.empty_like(z_N)
    for fold in range(FOLDS):
        slope, offset = platt(z_N[fold_N != fold], labels_N[fold_N != fold])
        scaled_N[fold_N == fold] = slope * z_N[fold_N == fold] + offset
    fall_N = _losses(z_N, labels_N) - _losses(scaled_N, labels_N)
    error = float(fall_N.std() / math.sqrt(len(fall_N)))
    return float(fall_N.mean()) / error if error > 0 else 0.0


def platt(logits_N: Floats, labels_N: Floats) -> tuple[float, float]:
    """(a, b) of least log loss, by Newton's method with backtracking (Lin, Lin & Weng 2007, algorithm 1).

    The targets are Platt's (N+ + 1) / (N+ + 2) and 1 / (N- + 2) instead of 1 and 0, so that parts that a threshold
    separates have a finite answer too.
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
            tried = _loss(design_N2 @ (ab_2 - size * step_2), target_N)
            if tried < loss - 1e-4 * size * float(gradient_2 @ step_2):
                break
            size /= 2
        else:
            break  # no step improves: it is as good as float64 tells
        ab_2, loss = ab_2 - size * step_2, tried
    return float(ab_2[0]), float(ab_2[1])


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of about equal size, [G] each: mean prediction, share of clicks, rows."""

    predicted_G: npt.NDArray[np.float64]
    observed_G: npt.NDArray[np.float64]
    rows_G: npt.NDArray[np.int64]

    @property
    def ece(self) -> float:
        """Expected calibration error: the bins' mean |predicted - observed|, weighted by rows (Naeini et al. 2015)."""
        gaps_G = np.abs(self.predicted_G - self.observed_G)
        return float((gaps_G * self.rows_G).sum() / self.rows_G.sum())


def reliability(labels_N: Floats, probabilities_N: Floats, bins: int = BINS) -> Reliability:
    """Bins between quantiles, so that none is nearly empty; equal predictions share a bin."""
    p_N = probabilities_N.astype(np.float64)
    borders = np.unique(np.quantile(p_N, np.linspace(0, 1, bins + 1)[1:-1]))
    bin_N = np.searchsorted(borders, p_N, side="left")
    rows = np.bincount(bin_N, minlength=len(borders) + 1)
    there = rows > 0
    sums = [np.bincount(bin_N, weights, minlength=len(rows))[there] for weights in (p_N, labels_N.astype(np.float64))]
    return Reliability(sums[0] / rows[there], sums[1] / rows[there], rows[there])


def sigmoid(z_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.exp(-np.logaddexp(0.0, -z_N)))


def _loss(z_N: npt.NDArray[np.float64], target_N: npt.NDArray[np.float64]) -> float:
    return float(_losses(z_N, target_N).mean())


def _losses(z_N: npt.NDArray[np.float64], target_N: Floats) -> npt.NDArray[np.float64]:
    """Binary cross-entropy of each row, in nats."""
    return np.asarray(np.logaddexp(0.0, z_N) - target_N * z_N)
