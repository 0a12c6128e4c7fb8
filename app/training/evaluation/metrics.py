"""Measure predictions: how well they rank, how likely they make the labels, and whether they are calibrated."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from app.training.evaluation.intervals import auc_interval, log_loss_interval
from app.training.evaluation.reliability import Floats, reliability
from app.training.evaluation.weighting import Weighting

NAN = float("nan")
METRIC_LABELS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "log_loss": "log loss",
    "pr_auc": "PR-AUC",
    "calibration": "predicted / observed",
    "ece": "ECE",
}
"""What people read, by the name of the metric, in the order in which tables show them."""


def evaluate(
    labels_N: Floats,
    probabilities_N: Floats,
    groups_N: npt.NDArray[Any] | None = None,
    weighting: Weighting | None = None,
) -> dict[str, float]:
    """Return AUC, log loss (nats), PR-AUC (average precision), calibration (predicted over observed CTR) and ECE.

    AUC and PR-AUC are NaN where all labels are equal, calibration where there was no click; the right calibration is 1.
    `auc_low`, `auc_high`, `log_loss_low` and `log_loss_high` are the bounds of 95 % intervals.

    Args:
        groups_N: the user of each row; with it the metrics have `gauc`.
        weighting: how much each row counts; None counts all the same.
    """
    weights_N = None if weighting is None else weighting.weights_N
    labels = labels_N.astype(np.float64)
    probabilities = probabilities_N.astype(np.float64)
    has_both_labels = labels.min() < labels.max()
    metrics = {
        "auc": float(roc_auc_score(labels, probabilities, sample_weight=weights_N)) if has_both_labels else NAN,
        "log_loss": float(log_loss(labels, probabilities, labels=[0.0, 1.0], sample_weight=weights_N)),
        "pr_auc": (
            float(average_precision_score(labels, probabilities, sample_weight=weights_N)) if has_both_labels else NAN
        ),
        "calibration": _predicted_over_observed(labels, probabilities, weights_N) if labels.any() else NAN,
        "ece": reliability(labels, probabilities, weights_N=weights_N).ece,
    }
    for name, interval in (
        ("auc", auc_interval(labels, probabilities, weighting)),
        ("log_loss", log_loss_interval(labels, probabilities, weighting)),
    ):
        metrics |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    if groups_N is not None:
        metrics["gauc"] = grouped_auc(groups_N, labels, probabilities, weights_N)
    return metrics


def _predicted_over_observed(labels_N: Floats, probabilities_N: Floats, weights_N: Floats | None) -> float:
    if weights_N is None:
        return float(probabilities_N.sum() / labels_N.sum())
    return float(probabilities_N @ weights_N) / float(labels_N @ weights_N)


def grouped_auc(
    groups_N: npt.NDArray[Any], labels_N: Floats, scores_N: Floats, weights_N: Floats | None = None
) -> float:
    """Return GAUC: the mean of the groups' AUC weighted by their rows, over the groups that have both labels.

    With users as groups it measures how well each user's candidates are ordered (Zhu et al. 2017, eq. 10).
    """
    auc_G, rows_G = group_aucs(groups_N, labels_N, scores_N, weights_N)
    return float((auc_G * rows_G).sum() / rows_G.sum()) if len(auc_G) else NAN


def group_aucs(
    groups_N: npt.NDArray[Any], labels_N: Floats, scores_N: Floats, weights_N: Floats | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return AUC and the weight of the rows of each group that has both labels, [G] each.

    AUC is the weighted share of the pairs of a click and another row of the group that are in order, ties by half (Mann
    & Whitney 1947); one sort does it for all groups.

    Args:
        weights_N: how much each row counts; None counts rows.
    """
    _, group_N = np.unique(groups_N, return_inverse=True)
    order = np.lexsort((scores_N, group_N))
    group_N, score_N, click_N = group_N[order], scores_N[order], labels_N[order].astype(np.float64)
    weight_N = np.ones(len(order)) if weights_N is None else weights_N[order].astype(np.float64)
    starts_N = np.r_[True, group_N[1:] != group_N[:-1]] if len(order) else np.zeros(0, bool)
    tie_N = np.cumsum(starts_N | np.r_[True, score_N[1:] != score_N[:-1]]) - 1 if len(order) else group_N
    other_T = np.bincount(tie_N, weight_N * (1 - click_N))
    below_T = np.cumsum(other_T) - other_T / 2  # of the rows without a click of this group and those before
    click_weight_N = weight_N * click_N
    weight_G, clicks_G = np.bincount(group_N, weight_N).astype(np.float64), np.bincount(group_N, click_weight_N)
    others_G = np.bincount(group_N, weight_N * (1 - click_N))
    before_G = np.cumsum(others_G) - others_G
    in_order_G = np.bincount(group_N, click_weight_N * (below_T[tie_N] - before_G[group_N]))
    both_G = (clicks_G > 0) & (others_G > 0)
    return in_order_G[both_G] / (clicks_G[both_G] * others_G[both_G]), weight_G[both_G]
