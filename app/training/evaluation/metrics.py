"""Measure predictions: how well they rank, how likely they make the labels, and whether they are calibrated."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from app.training.evaluation.intervals import auc_interval, log_loss_interval
from app.training.evaluation.reliability import Floats, reliability

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


def evaluate(labels_N: Floats, probabilities_N: Floats, groups_N: npt.NDArray[Any] | None = None) -> dict[str, float]:
    """Return AUC, log loss (nats), PR-AUC (average precision), calibration (predicted over observed CTR) and ECE.

    AUC and PR-AUC are NaN where all labels are equal, calibration where there was no click; the right calibration is 1.
    `auc_low`, `auc_high`, `log_loss_low` and `log_loss_high` are the bounds of 95 % intervals.

    Args:
        groups_N: the user of each row; with it the metrics have `gauc`.
    """
    labels = labels_N.astype(np.float64)
    probabilities = probabilities_N.astype(np.float64)
    has_both_labels = labels.min() < labels.max()
    metrics = {
        "auc": float(roc_auc_score(labels, probabilities)) if has_both_labels else NAN,
        "log_loss": float(log_loss(labels, probabilities, labels=[0.0, 1.0])),
        "pr_auc": float(average_precision_score(labels, probabilities)) if has_both_labels else NAN,
        "calibration": float(probabilities.sum() / labels.sum()) if labels.any() else NAN,
        "ece": reliability(labels, probabilities).ece,
    }
    for name, interval in (
        ("auc", auc_interval(labels, probabilities)),
        ("log_loss", log_loss_interval(labels, probabilities)),
    ):
        metrics |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    if groups_N is not None:
        metrics["gauc"] = grouped_auc(groups_N, labels, probabilities)
    return metrics


def grouped_auc(groups_N: npt.NDArray[Any], labels_N: Floats, scores_N: Floats) -> float:
    """Return GAUC: the mean of the groups' AUC weighted by their rows, over the groups that have both labels.

    With users as groups it measures how well each user's candidates are ordered (Zhu et al. 2017, eq. 10).
    """
    auc_G, rows_G = group_aucs(groups_N, labels_N, scores_N)
    return float((auc_G * rows_G).sum() / rows_G.sum()) if len(auc_G) else NAN


def group_aucs(
    groups_N: npt.NDArray[Any], labels_N: Floats, scores_N: Floats
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return AUC and rows of each group that has both labels, [G] each.

    AUC follows from ranks within the group (Mann & Whitney 1947), ties at their mean rank; one sort ranks all groups.
    """
    _, group_N = np.unique(groups_N, return_inverse=True)
    order = np.lexsort((scores_N, group_N))
    group_N, score_N, click_N = group_N[order], scores_N[order], labels_N[order].astype(np.float64)
    position_N = np.arange(len(order))
    new_N = np.r_[True, group_N[1:] != group_N[:-1]] if len(order) else np.zeros(0, bool)
    tie_N = np.cumsum(new_N | np.r_[True, score_N[1:] != score_N[:-1]]) - 1 if len(order) else position_N
    mean_position = np.bincount(tie_N, position_N) / np.maximum(np.bincount(tie_N), 1)
    rank_N = mean_position[tie_N] - np.flatnonzero(new_N)[group_N] + 1
    rows_G = np.bincount(group_N)
    clicks_G, ranks_G = np.bincount(group_N, click_N), np.bincount(group_N, rank_N * click_N)
    both_G = (clicks_G > 0) & (clicks_G < rows_G)
    rows_G, clicks_G, ranks_G = rows_G[both_G], clicks_G[both_G], ranks_G[both_G]
    return (ranks_G - clicks_G * (clicks_G + 1) / 2) / (clicks_G * (rows_G - clicks_G)), rows_G
