"""Average a trained model with logistic regression, which is ahead of it where rows are few or time has moved on.

    logit = (1 - a) model(x) + a (w0 + sum_s w_s x_s)

Both err on such rows, in different places, so that the average is better than either (a bagging of two: Breiman 1996).
A model whose logit adds a first-order part takes the other's weights into its own: a / (1 - a) times them are added to
column 0 of its table and to its bias, and its calibration multiplies the logit by 1 - a. What is served is the same
program at the same cost. docs/adr/0038 has what it is worth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import structlog
import torch

from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.training.evaluation.linear_baseline import LinearFit, fit_linear
from app.training.evaluation.platt import log_losses
from app.training.evaluation.reliability import Floats
from app.training.evaluation.weighting import Weighting
from app.training.preprocessing.expand import ExpandedRows

log = structlog.get_logger(__name__)

SHARES = (0.0, 0.25, 0.5, 0.75)
PRIOR_SHARE, PRIOR_STRENGTH = 0.5, 8.0
"""Validation has to gain 2 nats, summed over its rows, to leave the prior's share for none: few rows say little."""
MAX_ROWS, MAX_ROWS_WITH_STATISTICS = 200_000, 10_000
"""Most training rows, and most where the model has target statistics, which the regression lacks: with more no set was
seen where it adds anything, and its fit takes long."""


@dataclass(frozen=True)
class LinearAverage:
    """Says how a model was averaged with logistic regression."""

    share: float = 0.0
    inverse_l2: float | None = None
    """Scikit-learn's C of the regression; None where the share is 0."""
    alone_loss: float | None = None
    """Validation log loss of the model alone, in nats; None where no share was to be chosen."""
    loss: float | None = None
    """Validation log loss of the average, in nats; None where no share was to be chosen."""

    @property
    def scale(self) -> float:
        """Return 1 - share, by which the logit is multiplied once the regression's weights are added."""
        return 1.0 - self.share

    @property
    def in_words(self) -> str:
        """Say what was chosen and why; empty where nothing was to be chosen."""
        if self.alone_loss is None or self.loss is None:
            return ""
        if self.share == 0:
            return f"no average with logistic regression, as it does not lower the log loss {self.alone_loss:.4f}"
        why = "" if self.loss < self.alone_loss else "; validation has too few rows to tell"
        return (
            f"the average with logistic regression, of share {self.share:g}: "
            f"log loss {self.loss:.4f}, alone {self.alone_loss:.4f}{why}"
        )


def fit_regression(
    share: float | None, model: CtrModel, preprocessing: Preprocessing, train: ExpandedRows, seed: int
) -> LinearFit | None:
    """Fit the regression for a model; return None if the share is 0, or this model on these rows cannot gain.

    Where the fit fails the model stays alone, as it must not be lost.

    Args:
        share: the share of the regression; None if it is to be chosen.
    """
    most = MAX_ROWS_WITH_STATISTICS if preprocessing.statistics else MAX_ROWS
    if share == 0 or not model.has_first_order or len(train.labels_N) > most:
        return None
    try:
        return fit_linear(preprocessing, train, seed)
    except Exception:
        log.exception("regression_failed")
        return None


def choose_share(linear: LinearFit, logits_N: Floats, validation: ExpandedRows, weighting: Weighting) -> LinearAverage:
    """Choose the share of least log loss on validation rows, under a prior for equal shares.

    Args:
        logits_N: the model's logits of these rows.
    """
    linear_logits_N, labels_N = linear.logits(validation), validation.labels_N.numpy()
    losses = [
        weighting.mean(log_losses((1 - share) * logits_N.astype(np.float64) + share * linear_logits_N, labels_N))
        for share in SHARES
    ]
    penalties = [PRIOR_STRENGTH / weighting.effective_rows * (share - PRIOR_SHARE) ** 2 for share in SHARES]
    best = int(np.argmin(np.add(losses, penalties)))
    inverse_l2 = linear.inverse_l2 if SHARES[best] else None
    return LinearAverage(SHARES[best], inverse_l2, losses[0], losses[best])


def average(model: CtrModel, linear: LinearFit, share: float) -> None:
    """Add the regression's weights to the model's, in place; its logits are to be multiplied by 1 - share from now."""
    factor = share / (1 - share)
    with torch.no_grad():
        model.table_RE[: linear.width, 0].add_(torch.from_numpy(factor * linear.weights_R))
        model.bias.add_(factor * linear.intercept)
