"""Fit logistic regression to one-hot slots, with its regularisation chosen on a part of the training rows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from app.models.preprocessing import Preprocessing
from app.training.evaluation.baseline_fit import BaselineFit, Probabilities
from app.training.evaluation.inner_split import Index, inner_folds
from app.training.evaluation.platt import sigmoid
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows

GRID = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Values of scikit-learn's C, the inverse of L2, in ascending order: each fit begins with the weights before it."""
MAX_SEARCH_ROWS, MIN_SEARCH_CLICKS = 25_000, 2_000
"""C is chosen on so many rows, as it is the variance of the weights, which rows do not change; on more where clicks,
or rows without one, are rare."""
TOLERANCE, SEARCH_TOLERANCE = 1e-6, 1e-5
"""The solver stops where no component of the gradient of the mean loss is larger; to choose C, the second will do."""
MAX_ITERATIONS = 100
SOLVER = "newton-cg"
"""A truncated Newton method: it converges on sparse columns in 3 to 6 steps where L-BFGS takes a hundred."""


@dataclass(frozen=True, eq=False)
class LinearFit:
    """Holds logistic regression as it was fitted: logit = intercept + sum_s w_s x_s."""

    model: LogisticRegression
    width: int
    """Number of table rows that have a weight: all but those of target statistics."""
    has_converged: bool

    @property
    def inverse_l2(self) -> float:
        """Return scikit-learn's C."""
        return float(self.model.C)

    @cached_property
    def weights_R(self) -> npt.NDArray[np.float64]:
        """Return the weights [R] of the first `width` table rows, in float64."""
        return np.asarray(self.model.coef_[0], np.float64)

    @property
    def intercept(self) -> float:
        """Return the intercept."""
        return float(self.model.intercept_[0])

    def logits(self, rows: ExpandedRows) -> npt.NDArray[np.float64]:
        """Return the logits [N] of rows, in float64."""
        return np.asarray(self.model.decision_function(_sparse(rows, self.width)), np.float64)

    def as_baseline(self) -> BaselineFit:
        """Return it as a baseline."""

        def predict(encoded: EncodedRows, rows: ExpandedRows) -> Probabilities:
            return sigmoid(self.logits(rows))

        outcome = "converged" if self.has_converged else f"not converged after {MAX_ITERATIONS} iterations"
        return BaselineFit(predict, f"C = {self.inverse_l2:g}, {outcome}")


def fit_linear(
    preprocessing: Preprocessing, train: ExpandedRows, seed: int = 0, inverse_l2: float | None = None
) -> LinearFit:
    """Fit it over the one-hot slots, buckets of numbers included, target statistics not.

    A training row's statistics are of other rows than a held-out row's: where a user has as many rows with a click as
    without, they tell the training row's label inversely, and no choice of C on training rows sees that.

    C is the value of least log loss on rows held out; the search ends where a larger C is worse. Then all rows are
    fitted with it.

    Args:
        inverse_l2: C, where it is known.
    """
    width = preprocessing.statistic_rows("user").start
    data, labels_N = _sparse(train, width), train.labels_N.numpy()
    weights_N = None if train.weights_N is None else train.weights_N.numpy().astype(np.float64)
    units_N = None if train.units_N is None else train.units_N.numpy()
    if inverse_l2 is None:
        model = _search(data, labels_N, weights_N, units_N, seed)
    else:
        model = LogisticRegression(C=inverse_l2, solver=SOLVER, max_iter=MAX_ITERATIONS)
    model.tol = TOLERANCE
    return LinearFit(model, width, _fit(model, data, labels_N, weights_N))


def _search(
    data: csr_matrix, labels_N: np.ndarray, weights_N: np.ndarray | None, units_N: Index | None, seed: int
) -> LogisticRegression:
    """Return a model that has the C of least log loss on the rows held out, and begins with weights near its own."""
    rarer_share = min(float(labels_N.mean()), 1 - float(labels_N.mean()))
    max_rows = max(MAX_SEARCH_ROWS, int(MIN_SEARCH_CLICKS / max(rarer_share, 1e-9)))
    searches = [
        _Search(data, labels_N, weights_N, fitted_N, held_out_N)
        for fitted_N, held_out_N in inner_folds(labels_N, seed, max_rows, units_N)
    ]
    best, least = GRID[0], np.inf
    for inverse_l2 in GRID:
        loss = float(np.mean([search.loss(inverse_l2) for search in searches]))
        if loss >= least:
            break
        best, least = inverse_l2, loss
    model = searches[-1].model
    model.C = best
    return model


class _Search:
    """Fits one split of the rows by one C after the other, each from the weights of the one before."""

    def __init__(
        self,
        data: csr_matrix,
        labels_N: np.ndarray,
        weights_N: np.ndarray | None,
        fitted_N: Index,
        held_out_N: Index,
    ) -> None:
        self.model = LogisticRegression(solver=SOLVER, tol=SEARCH_TOLERANCE, max_iter=MAX_ITERATIONS, warm_start=True)
        self._fitted, self._held_out = (
            (data[rows_N], labels_N[rows_N], None if weights_N is None else weights_N[rows_N])
            for rows_N in (fitted_N, held_out_N)
        )

    def loss(self, inverse_l2: float) -> float:
        """Return the log loss, in nats, of the rows held out."""
        self.model.C = inverse_l2
        _fit(self.model, *self._fitted)
        data, labels_N, weights_N = self._held_out
        p_N = self.model.predict_proba(data)[:, 1]
        return float(log_loss(labels_N, p_N, labels=[0, 1], sample_weight=weights_N))


def _fit(model: LogisticRegression, data: csr_matrix, labels_N: np.ndarray, weights_N: np.ndarray | None) -> bool:
    """Fit the model and return whether it has converged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(data, labels_N, sample_weight=weights_N)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def _sparse(rows: ExpandedRows, width: int) -> csr_matrix:
    """Return the slots of table rows below `width` as a matrix [N, width] in float64: float32 misses the tolerance."""
    count, slots = rows.rows_NT.shape
    rows_NT, x_NT = rows.rows_NT.numpy(), rows.x_NT[:, :slots].to(torch.float64).numpy()
    is_kept_T = (rows_NT < width).all(0)  # a statistic has a slot of its own, with one table row
    kept = int(is_kept_T.sum())
    starts = np.arange(count + 1) * kept
    return csr_matrix((x_NT[:, is_kept_T].ravel(), rows_NT[:, is_kept_T].ravel(), starts), shape=(count, width))
