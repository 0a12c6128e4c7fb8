"""Fit the baselines that a model must beat on the same rows: a constant, a linear model, boosted trees."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from app.features.fields import SIDES, MultiCategorical, Numeric
from app.features.schema import FeatureSchema
from app.models.preprocessing import Preprocessing
from app.training.evaluation.metrics import evaluate
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.sampling import sample_both, take_rows

Matrix = npt.NDArray[np.float64]
MAX_ITERATIONS = 100
MAX_ROWS = 500_000
"""Baselines are fitted on at most this many rows, drawn at random: they hold them in memory several times over."""
CHUNK_ROWS = 100_000
"""This many test rows are predicted at a time."""
INVERSE_L2 = 0.1
"""The argument C of scikit-learn's logistic regression is the best of 0.01, 0.1 and 1 on the sample data."""
MAX_ONE_HOT = 40
"""Trees are fitted on this many of the most frequent values of a multi-valued field, one column each."""


def fit_baselines(
    preprocessing: Preprocessing,
    train: tuple[EncodedRows, ExpandedRows],
    test: tuple[EncodedRows, ExpandedRows],
    seed: int = 0,
    groups_N: npt.NDArray[np.int64] | None = None,
    *,
    max_rows: int = MAX_ROWS,
    chunk_rows: int = CHUNK_ROWS,
) -> dict[str, dict[str, float]]:
    """Fit each baseline on the training rows and return its metrics on the test rows.

    Args:
        groups_N: the user of each test row; with it the metrics have GAUC.
        max_rows: the number of training rows to fit on, drawn at random if there are more.
        chunk_rows: the number of test rows that are predicted at a time.
    """
    train_labels, test_labels = train[0].labels_N, test[0].labels_N
    train = sample_both(*train, seed, max_rows)
    constant = np.full(len(test_labels), train_labels.mean())
    predictions = {
        "constant": constant,
        "logistic_regression": predict_linear(preprocessing, train[1], test[1], chunk_rows),
        "gradient_boosting": predict_trees(preprocessing.schema, train[0], test[0], seed, chunk_rows),
    }
    return {name: evaluate(test_labels, predicted, groups_N) for name, predicted in predictions.items()}


def predict_linear(
    preprocessing: Preprocessing, train: ExpandedRows, test: ExpandedRows, chunk_rows: int = CHUNK_ROWS
) -> Matrix:
    """Return the test probabilities [N] of logistic regression over the one-hot slots, buckets included."""
    model = LogisticRegression(C=INVERSE_L2, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # capped, so that baselines cost less than the model
        model.fit(_sparse(train, preprocessing.rows), train.labels_N.numpy())
    chunks = zip(*(torch.split(tensor, chunk_rows) for tensor in test), strict=True)
    return np.concatenate([model.predict_proba(_sparse(ExpandedRows(*c), preprocessing.rows))[:, 1] for c in chunks])


def predict_trees(
    schema: FeatureSchema, train: EncodedRows, test: EncodedRows, seed: int = 0, chunk_rows: int = CHUNK_ROWS
) -> Matrix:
    """Return the test probabilities [N] of histogram gradient boosting.

    Its columns are raw numbers, target-encoded categories and the frequent values of lists.
    """
    train_NC, categories = _columns(schema, train, train)
    if categories:
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        encoder = TargetEncoder(target_type="binary", cv=folds)
        # fit_transform is cross-fitted: a training row's own label does not enter its encoding.
        train_NC[:, categories] = encoder.fit_transform(train_NC[:, categories], train.labels_N)
    has_numbers_C = ~np.isnan(train_NC).all(0)  # a column without a number cannot be put into bins
    if not has_numbers_C.any():
        return np.full(len(test.labels_N), float(train.labels_N.mean()))
    model = HistGradientBoostingClassifier(max_iter=MAX_ITERATIONS, early_stopping=True, random_state=seed)
    model.fit(train_NC[:, has_numbers_C], train.labels_N)
    scores = []
    for start in range(0, len(test.labels_N), chunk_rows):
        test_NC, _ = _columns(schema, take_rows(test, slice(start, start + chunk_rows)), train)
        if categories:
            test_NC[:, categories] = encoder.transform(test_NC[:, categories])
        scores.append(model.predict_proba(test_NC[:, has_numbers_C])[:, 1])
    return np.concatenate(scores)


def _sparse(rows: ExpandedRows, width: int) -> csr_matrix:
    count, slots = rows.rows_NT.shape
    starts = np.arange(count + 1) * slots
    return csr_matrix(
        (rows.x_NT[:, :slots].numpy().ravel(), rows.rows_NT.numpy().ravel(), starts), shape=(count, width)
    )


def _columns(schema: FeatureSchema, data: EncodedRows, train: EncodedRows) -> tuple[Matrix, list[int]]:
    """Return columns [N, C] and which of them hold category codes. Codes and frequent values are those of `train`."""
    columns: list[npt.NDArray[np.floating]] = []
    categories: list[int] = []
    for side in SIDES:
        slots, train_slots = data.side(side), train.side(side)
        for field, span in schema.layout(side):
            if isinstance(field, Numeric):
                columns.append(slots.values[:, span.start])
            elif isinstance(field, MultiCategorical):
                keys, counts = np.unique(
                    train_slots.keys[:, span][train_slots.values[:, span] != 0], return_counts=True
                )
                frequent = keys[np.argsort(-counts, kind="stable")[:MAX_ONE_HOT]]
                weights = slots.values[:, span]
                columns.extend(np.where(slots.keys[:, span] == key, weights, 0).sum(1) for key in frequent)
            else:
                vocabulary = np.unique(train_slots.keys[:, span.start])
                code = np.searchsorted(vocabulary, slots.keys[:, span.start]).clip(max=len(vocabulary) - 1)
                categories.append(len(columns))
                columns.append(np.where(vocabulary[code] == slots.keys[:, span.start], code, -1).astype(np.float64))
    return np.stack(columns, 1).astype(np.float64), categories
