"""Say how sure a metric is, and a difference of two models' metrics on the same rows.

AUC is a mean over pairs of a click and another row. With V10 [P], for each click the share of the N other rows that it
is above, and V01 [N], for each other row the share of the P clicks that are above it (ties count half), the variance of
AUC is var(V10) / P + var(V01) / N, and that of a difference of two is the same of the differences of V10 and V01
(DeLong, DeLong & Clarke-Pearson 1988, eq. 5). Ranks give both in the time of a sort (Sun & Xu 2014, eq. 8).

The log loss is a mean over rows: its interval is the normal one, from the standard error of that mean. Rows count as
independent; where few users have many rows each, the intervals are too narrow.

Where rows have weights all these means are weighted, and their variances are those of weighted means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtri

from app.training.evaluation.reliability import Floats
from app.training.evaluation.weighting import Weighting, equal_weights

LEVEL = 0.95
"""An interval covers the true value this often."""
Z = float(ndtri(0.5 + LEVEL / 2))
NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """Holds a value, its standard error, and the bounds of its 95 % interval. Bounds are NaN where rows are too few."""

    value: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Holds how much higher one model's metrics are than another's on the same rows."""

    auc: Interval
    log_loss: Interval


def auc_interval(labels_N: Floats, scores_N: Floats, weighting: Weighting | None = None) -> Interval:
    """Return AUC with an interval that is symmetric in its log odds, so that it stays within 0 and 1.

    An AUC of 0 or 1 has no error that the rows could tell: its bounds are the value itself.
    """
    weighting = weighting or equal_weights(len(labels_N))
    value, error = _mean_and_error(labels_N, _placements(labels_N, scores_N, weighting), weighting)
    if not error > 0:
        bound = value if error == 0 else NAN
        return Interval(value, error, bound, bound)
    reach = Z * error / (value * (1 - value))
    return Interval(value, error, float(expit(logit(value) - reach)), float(expit(logit(value) + reach)))


def log_loss_interval(labels_N: Floats, probabilities_N: Floats, weighting: Weighting | None = None) -> Interval:
    """Return the log loss, in nats, with the normal interval of a mean, not below 0."""
    interval = _of_mean(row_log_losses(labels_N, probabilities_N), weighting)
    return Interval(interval.value, interval.error, max(interval.low, 0.0), interval.high)


def paired_difference(
    labels_N: Floats, probabilities_N: Floats, other_N: Floats, weighting: Weighting | None = None
) -> PairedDifference:
    """Return by how much AUC and log loss of the first probabilities are above those of the others, row by row."""
    weighting = weighting or equal_weights(len(labels_N))
    mine_N, other_placements_N = (_placements(labels_N, scores_N, weighting) for scores_N in (probabilities_N, other_N))
    value, error = _mean_and_error(labels_N, mine_N - other_placements_N, weighting)
    losses_N, other_losses_N = (row_log_losses(labels_N, p_N) for p_N in (probabilities_N, other_N))
    return PairedDifference(
        auc=Interval(value, error, value - Z * error, value + Z * error),
        log_loss=_of_mean(losses_N - other_losses_N, weighting),
    )


def row_log_losses(labels_N: Floats, probabilities_N: Floats) -> npt.NDArray[np.float64]:
    """Return each row's log loss in nats; a probability of 0 or 1 counts as the next that float64 has."""
    p_N = np.where(labels_N > 0.5, probabilities_N, 1 - probabilities_N.astype(np.float64))
    return np.asarray(-np.log(np.clip(p_N, np.finfo(np.float64).eps, 1.0)))


def _placements(labels_N: Floats, scores_N: Floats, weighting: Weighting) -> npt.NDArray[np.float64]:
    """Return V10 of each click and V01 of each other row [N]; NaN where there are none of either."""
    is_click_N = labels_N > 0.5
    values, value_N = np.unique(scores_N, return_inverse=True)
    placement_N = np.empty(len(labels_N))
    for is_own_N, sign in ((is_click_N, 1.0), (~is_click_N, -1.0)):
        weight_V = np.bincount(value_N[~is_own_N], weighting.weights_N[~is_own_N], len(values))
        below_V = np.cumsum(weight_V) - weight_V / 2  # of the rows of the other class, ties by half
        total = weight_V.sum()
        share_V = below_V / total if total > 0 else np.full(len(values), NAN)
        placement_N[is_own_N] = (share_V if sign > 0 else 1 - share_V)[value_N[is_own_N]]
    return placement_N


def _mean_and_error(
    labels_N: Floats, placements_N: npt.NDArray[np.float64], weighting: Weighting
) -> tuple[float, float]:
    """Return AUC, or a difference of two, and its standard error; NaN for what the rows cannot tell."""
    is_click_N = labels_N > 0.5
    if is_click_N.all() or not is_click_N.any():
        return NAN, NAN
    value, error = weighting.of(is_click_N).mean_and_error(placements_N[is_click_N])
    _, other_error = weighting.of(~is_click_N).mean_and_error(placements_N[~is_click_N])
    return value, math.hypot(error, other_error)


def _of_mean(values_N: npt.NDArray[np.float64], weighting: Weighting | None) -> Interval:
    mean, error = (weighting or equal_weights(len(values_N))).mean_and_error(values_N)
    return Interval(mean, error, mean - Z * error, mean + Z * error)
