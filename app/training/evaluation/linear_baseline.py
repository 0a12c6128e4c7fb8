"""Fit logistic regression to one-hot slots, with its regularisation chosen on a part of the training rows."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from app.models.preprocessing import Preprocessing
from app.training.evaluation.baseline_fit import BaselineFit, Probabilities
from app.training.evaluation.inner_split import Index, inner_folds
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


def fit_linear(preprocessing: Preprocessing, train: ExpandedRows, seed: int = 0) -> BaselineFit:
    """Fit it over the one-hot slots, buckets of numbers included.

    C is the value of least log loss on rows held out; the search ends where a larger C is worse. Then all rows are
    fitted with it.
    """
    width = preprocessing.rows
    data, labels_N = _sparse(train, width), train.labels_N.numpy()
    weights_N = None if train.weights_N is None else train.weights_N.numpy().astype(np.float64)
    units_N = None if train.units_N is None else train.units_N.numpy()
    model = _search(data, labels_N, weights_N, units_N, seed)
    model.tol = TOLERANCE
    has_converged = _fit(model, data, labels_N, weights_N)

    def predict(encoded: EncodedRows, rows: ExpandedRows) -> Probabilities:
        return np.asarray(model.predict_proba(_sparse(rows, width))[:, 1])

    outcome = "converged" if has_converged else f"not converged after {MAX_ITERATIONS} iterations"
    return BaselineFit(predict, f"C = {model.C:g}, {outcome}")


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
    """Return the slots as a matrix [N, R] in float64: float32 does not reach the tolerance."""
    count, slots = rows.rows_NT.shape
    starts = np.arange(count + 1) * slots
    values = rows.x_NT[:, :slots].to(torch.float64).numpy().ravel()  # what follows are target statistics
    return csr_matrix((values, rows.rows_NT.numpy().ravel(), starts), shape=(count, width))
