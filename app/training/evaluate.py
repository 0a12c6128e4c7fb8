"""How good predictions are: ranking, probability, and whether they add up to the clicks that happened."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

Floats = npt.NDArray[np.floating[Any]]


def evaluate(labels_N: Floats, probabilities_N: Floats) -> dict[str, float]:
    """AUC, log loss (nats), PR-AUC (average precision) and calibration: predicted over observed CTR, 1 is right.

    AUC and PR-AUC are NaN where all labels are equal, calibration where there was no click.
    """
    labels = labels_N.astype(np.float64)
    probabilities = probabilities_N.astype(np.float64)
    both = labels.min() < labels.max()
    return {
        "auc": float(roc_auc_score(labels, probabilities)) if both else float("nan"),
        "log_loss": float(log_loss(labels, probabilities, labels=[0.0, 1.0])),
        "pr_auc": float(average_precision_score(labels, probabilities)) if both else float("nan"),
        "calibration": float(probabilities.sum() / labels.sum()) if labels.any() else float("nan"),
    }


def grouped_auc(groups_N: npt.NDArray[Any], labels_N: Floats, scores_N: Floats) -> float:
    """GAUC: the mean of each group's AUC weighted by its rows, over the groups that have both labels.

    With users as groups it says how well each user's candidates are ordered (Zhu et al. 2017, eq. 10).
    """
    total, weight = 0.0, 0
    _, group_N = np.unique(groups_N, return_inverse=True)
    order = np.argsort(group_N, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group_N[order])) + 1):
        labels = labels_N[rows]
        if labels.min() < labels.max():
            total += len(rows) * float(roc_auc_score(labels, scores_N[rows]))
            weight += len(rows)
    return total / weight if weight else float("nan")
