"""What a model must beat, on the very rows and features that it sees: a constant, a linear model, boosted trees."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from app.features.fields import SIDES, MultiCategorical, Numeric
from app.features.schema import FeatureSchema
from app.models.side_input import Preprocessing
from app.training.evaluation.metrics import evaluate
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.sampling import sampled, taken

Matrix = npt.NDArray[np.float64]
MAX_ITERATIONS = 100
MAX_ROWS = 500_000
"""Training rows the baselines see, at random: they hold all of them in memory, several times over."""
CHUNK_ROWS = 100_000
"""Test rows predicted at a time."""
INVERSE_L2 = 0.1
"""C of scikit-learn's logistic regression; the best of 0.01, 0.1 and 1 on the sample data's validation part."""
MAX_ONE_HOT = 40
"""A multi-valued field's most frequent values that trees see, one column each."""


def baselines(
    preprocessing: Preprocessing,
    train: tuple[EncodedRows, ExpandedRows],
    test: tuple[EncodedRows, ExpandedRows],
    seed: int = 0,
    groups_N: npt.NDArray[np.int64] | None = None,
) -> dict[str, dict[str, float]]:
    """Metrics of each baseline on the test rows, fitted on the training rows; with `groups_N` their GAUC too.

    Of more than `MAX_ROWS` training rows they see a sample.
    """
    train_labels, test_labels = train[0].labels_N, test[0].labels_N
    train = sampled(*train, seed, MAX_ROWS)
    constant = np.full(len(test_labels), train_labels.mean())
    return {
        "constant": evaluate(test_labels, constant, groups_N),
        "logistic_regression": evaluate(test_labels, linear(preprocessing, train[1], test[1]), groups_N),
        "gradient_boosting": evaluate(test_labels, trees(preprocessing.schema, train[0], test[0], seed), groups_N),
    }


def linear(preprocessing: Preprocessing, train: ExpandedRows, test: ExpandedRows) -> Matrix:
    """Test probabilities of logistic regression over the one-hot slots, buckets included."""
    model = LogisticRegression(C=INVERSE_L2, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # capped on purpose: a baseline must not cost more than us
        model.fit(_sparse(train, preprocessing.rows), train.labels_N.numpy())
    chunks = zip(*(torch.split(tensor, CHUNK_ROWS) for tensor in test), strict=True)
    return np.concatenate([model.predict_proba(_sparse(ExpandedRows(*c), preprocessing.rows))[:, 1] for c in chunks])


def trees(schema: FeatureSchema, train: EncodedRows, test: EncodedRows, seed: int = 0) -> Matrix:
    """Test probabilities of histogram gradient boosting over raw numbers, target-encoded categories and lists."""
    train_NC, categories = _columns(schema, train, train)
    if categories:
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        encoder = TargetEncoder(target_type="binary", cv=folds)
        # fit_transform is cross-fitted: a training row's own label does not enter its encoding.
        train_NC[:, categories] = encoder.fit_transform(train_NC[:, categories], train.labels_N)
    there_C = ~np.isnan(train_NC).all(0)  # a column without a number cannot be put into bins
    if not there_C.any():
        return np.full(len(test.labels_N), float(train.labels_N.mean()))
    model = HistGradientBoostingClassifier(max_iter=MAX_ITERATIONS, early_stopping=True, random_state=seed)
    model.fit(train_NC[:, there_C], train.labels_N)
    scores = []
    for start in range(0, len(test.labels_N), CHUNK_ROWS):
        test_NC, _ = _columns(schema, taken(test, slice(start, start + CHUNK_ROWS)), train)
        if categories:
            test_NC[:, categories] = encoder.transform(test_NC[:, categories])
        scores.append(model.predict_proba(test_NC[:, there_C])[:, 1])
    return np.concatenate(scores)


def _sparse(rows: ExpandedRows, width: int) -> csr_matrix:
    count, slots = rows.rows_NT.shape
    starts = np.arange(count + 1) * slots
    return csr_matrix((rows.x_NT.numpy().ravel(), rows.rows_NT.numpy().ravel(), starts), shape=(count, width))


def _columns(schema: FeatureSchema, data: EncodedRows, train: EncodedRows) -> tuple[Matrix, list[int]]:
    """Columns [N, C] and which of them hold category codes. Codes and frequent values are those of `train`."""
    columns: list[npt.NDArray[np.floating]] = []
    categories: list[int] = []
    for side in SIDES:
        slots, known = data.side(side), train.side(side)
        for field, place in schema.layout(side):
            if isinstance(field, Numeric):
                columns.append(slots.values[:, place.start])
            elif isinstance(field, MultiCategorical):
                keys, counts = np.unique(known.keys[:, place][known.values[:, place] != 0], return_counts=True)
                frequent = keys[np.argsort(-counts, kind="stable")[:MAX_ONE_HOT]]
                weights = slots.values[:, place]
                columns.extend(np.where(slots.keys[:, place] == key, weights, 0).sum(1) for key in frequent)
            else:
                vocabulary = np.unique(known.keys[:, place.start])
                code = np.searchsorted(vocabulary, slots.keys[:, place.start]).clip(max=len(vocabulary) - 1)
                categories.append(len(columns))
                columns.append(np.where(vocabulary[code] == slots.keys[:, place.start], code, -1).astype(np.float64))
    return np.stack(columns, 1).astype(np.float64), categories
