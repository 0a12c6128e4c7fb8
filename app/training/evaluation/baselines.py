"""Fit the baselines that a model must beat on the same rows: a constant, a linear model, boosted trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.models.preprocessing import Preprocessing
from app.training.data.row_weights import RowWeights
from app.training.evaluation.baseline_fit import BaselineFit, Probabilities, fit_constant
from app.training.evaluation.lightgbm_baseline import fit_lightgbm, has_lightgbm
from app.training.evaluation.linear_baseline import LinearFit, fit_linear
from app.training.evaluation.metrics import evaluate
from app.training.evaluation.tree_baseline import fit_trees
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.sampling import sample_both

MAX_ROWS = 500_000
"""Baselines are fitted on at most this many rows, drawn at random: they hold them in memory several times over."""
CHUNK_ROWS = 100_000
"""This many held-out rows are predicted at a time."""
CONSTANT, LOGISTIC_REGRESSION = "constant", "logistic_regression"
GRADIENT_BOOSTING, LIGHTGBM = "gradient_boosting", "lightgbm"
BASELINES = (CONSTANT, LOGISTIC_REGRESSION, GRADIENT_BOOSTING, LIGHTGBM)


@dataclass(frozen=True)
class BaselineResult:
    """Holds what a baseline, or another version, predicts for held-out parts, and how good that is."""

    probabilities: dict[str, Probabilities]
    """Probabilities [N] by part."""
    metrics: dict[str, dict[str, float]]
    """Metrics by part."""
    note: str = ""
    """Says how it was fitted: what was chosen, and whether the solver has converged."""


def fit_baselines(
    preprocessing: Preprocessing,
    parts: Mapping[str, tuple[EncodedRows, ExpandedRows]],
    seed: int = 0,
    groups: Mapping[str, npt.NDArray[np.int64] | None] | None = None,
    *,
    names: tuple[str, ...] = BASELINES,
    linear: LinearFit | None = None,
    max_rows: int = MAX_ROWS,
    chunk_rows: int = CHUNK_ROWS,
) -> dict[str, BaselineResult]:
    """Fit baselines on the part `train` and measure them on the others. Without LightGBM installed there is none of it.

    Args:
        groups: the user of each row by part; with it the metrics have GAUC.
        names: which baselines to fit.
        linear: logistic regression, where it was fitted already.
        max_rows: the number of training rows to fit on, drawn at random if there are more.
        chunk_rows: the number of held-out rows that are predicted at a time.
    """
    train, rows = sample_both(*parts["train"], seed, max_rows)
    fits: dict[str, Callable[[], BaselineFit]] = {
        CONSTANT: lambda: fit_constant(parts["train"][0]),
        LOGISTIC_REGRESSION: lambda: (linear or fit_linear(preprocessing, rows, seed)).as_baseline(),
        GRADIENT_BOOSTING: lambda: fit_trees(preprocessing.schema, train, seed),
    }
    if has_lightgbm():
        fits[LIGHTGBM] = lambda: fit_lightgbm(preprocessing.schema, train, seed)
    results = {}
    for name, fit_baseline in fits.items():
        if name not in names:
            continue
        fitted = fit_baseline()
        probabilities = {
            part: _among_all_rows(fitted.predict_in_chunks(*held_out, chunk_rows), train.weights)
            for part, held_out in parts.items()
            if part != "train"
        }
        metrics = {
            part: evaluate(parts[part][0].labels_N, p_N, (groups or {}).get(part), parts[part][0].weighting)
            for part, p_N in probabilities.items()
        }
        results[name] = BaselineResult(probabilities, metrics, fitted.note)
    return results


def _among_all_rows(probabilities_N: Probabilities, weights: RowWeights | None) -> Probabilities:
    """Return what probabilities among the rows that were kept are among all, those that were left out too."""
    if weights is None or weights.negative_rate == 1:
        return probabilities_N
    clicks_N = probabilities_N * weights.negative_rate
    return clicks_N / (clicks_N + 1 - probabilities_N)
