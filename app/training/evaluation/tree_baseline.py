"""Fit scikit-learn's histogram gradient boosting to raw numbers, target-encoded categories and frequent list values."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from app.features.schema import FeatureSchema
from app.training.evaluation.baseline_fit import BaselineFit, Probabilities, fit_constant
from app.training.evaluation.tree_columns import TreeColumns
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows

MAX_TREES = 100


def fit_trees(schema: FeatureSchema, train: EncodedRows, seed: int = 0) -> BaselineFit:
    """Fit at most `MAX_TREES` trees, fewer where a tenth of the rows, held out, gains nothing more."""
    columns = TreeColumns(schema, train)
    train_NC, categories = columns.of(train), columns.categories
    encoder = TargetEncoder(target_type="binary", cv=StratifiedKFold(5, shuffle=True, random_state=seed))
    if categories:
        # fit_transform is cross-fitted: a training row's own label does not enter its encoding.
        train_NC[:, categories] = encoder.fit_transform(train_NC[:, categories], train.labels_N)
    has_numbers_C = ~np.isnan(train_NC).all(0)  # a column without a number cannot be put into bins
    if not has_numbers_C.any():
        return fit_constant(train.labels_N)
    model = HistGradientBoostingClassifier(max_iter=MAX_TREES, early_stopping=True, random_state=seed)
    model.fit(train_NC[:, has_numbers_C], train.labels_N)

    def predict(encoded: EncodedRows, rows: ExpandedRows) -> Probabilities:
        data_NC = columns.of(encoded)
        if categories:
            data_NC[:, categories] = encoder.transform(data_NC[:, categories])
        return np.asarray(model.predict_proba(data_NC[:, has_numbers_C])[:, 1])

    return BaselineFit(predict, f"{model.n_iter_} trees")
