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
from app.training.evaluation.inner_split import inner_split
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows

GRID = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Values of scikit-learn's C, the inverse of L2, in ascending order: each fit begins with the weights before it."""
MAX_SEARCH_ROWS = 100_000
"""C is chosen on at most so many rows: it is the variance of the weights, which rows do not change."""
TOLERANCE, SEARCH_TOLERANCE = 1e-6, 1e-5
"""The solver stops where no component of the gradient of the mean loss is larger; to choose C, the second will do."""
MAX_ITERATIONS = 100
SOLVER = "newton-cg"
"""A truncated Newton method: it converges on sparse columns in 3 to 6 steps where L-BFGS takes a hundred."""


def fit_linear(preprocessing: Preprocessing, train: ExpandedRows, seed: int = 0) -> BaselineFit:
    """Fit it over the one-hot slots, buckets of numbers included.

    C is the value of least log loss on a tenth of the rows; the search ends where a larger C is worse. Then all rows
    are fitted with it.
    """
    width = preprocessing.rows
    inverse_l2 = _choose(_sparse(train, width), train.labels_N.numpy(), seed)
    model = LogisticRegression(C=inverse_l2, solver=SOLVER, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    has_converged = _fit(model, _sparse(train, width), train.labels_N.numpy())

    def predict(encoded: EncodedRows, rows: ExpandedRows) -> Probabilities:
        return np.asarray(model.predict_proba(_sparse(rows, width))[:, 1])

    outcome = "converged" if has_converged else f"not converged after {MAX_ITERATIONS} iterations"
    return BaselineFit(predict, f"C = {inverse_l2:g}, {outcome}")


def _choose(data: csr_matrix, labels_N: np.ndarray, seed: int) -> float:
    """Return the C of least log loss on the rows held out."""
    fitted_N, held_out_N = inner_split(labels_N, seed, MAX_SEARCH_ROWS)
    model = LogisticRegression(solver=SOLVER, tol=SEARCH_TOLERANCE, max_iter=MAX_ITERATIONS, warm_start=True)
    best, least = GRID[0], np.inf
    fitted, held_out = data[fitted_N], data[held_out_N]
    for inverse_l2 in GRID:
        model.C = inverse_l2
        _fit(model, fitted, labels_N[fitted_N])
        loss = log_loss(labels_N[held_out_N], model.predict_proba(held_out)[:, 1], labels=[0, 1])
        if loss >= least:
            break
        best, least = inverse_l2, loss
    return best


def _fit(model: LogisticRegression, data: csr_matrix, labels_N: np.ndarray) -> bool:
    """Fit the model and return whether it has converged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(data, labels_N)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def _sparse(rows: ExpandedRows, width: int) -> csr_matrix:
    """Return the slots as a matrix [N, R] in float64: float32 does not reach the tolerance."""
    count, slots = rows.rows_NT.shape
    starts = np.arange(count + 1) * slots
    values = rows.x_NT[:, :slots].to(torch.float64).numpy().ravel()  # what follows are target statistics
    return csr_matrix((values, rows.rows_NT.numpy().ravel(), starts), shape=(count, width))
