"""Fit scikit-learn's histogram gradient boosting to raw numbers, target-encoded categories and frequent list values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from app.features.schema import FeatureSchema
from app.training.evaluation.baseline_fit import BaselineFit, Probabilities, fit_constant
from app.training.evaluation.inner_split import inner_split
from app.training.evaluation.tree_columns import Matrix, TreeColumns
from app.training.preprocessing.click_rates import deal_folds, out_of_fold, smoothed_rates
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows

MAX_TREES, FOLDS = 100, 5


def fit_trees(schema: FeatureSchema, train: EncodedRows, seed: int = 0) -> BaselineFit:
    """Fit at most `MAX_TREES` trees, fewer where a tenth of the rows, held out, gains nothing more."""
    columns = TreeColumns(schema, train)
    train_NC, categories = columns.of(train), columns.categories
    weights_N = None if train.weights is None else train.weights.training_N
    units_N = None if train.weights is None else train.weights.units_N
    encoder: TargetEncoder | _WeightedEncoder
    if weights_N is None:
        encoder = TargetEncoder(target_type="binary", cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed))
    else:
        encoder = _WeightedEncoder(weights_N.astype(np.float64), deal_folds(len(weights_N), FOLDS, seed, units_N))
    if categories:
        # fit_transform is cross-fitted: a training row's own label does not enter its encoding.
        train_NC[:, categories] = encoder.fit_transform(train_NC[:, categories], train.labels_N)
    has_numbers_C = ~np.isnan(train_NC).all(0)  # a column without a number cannot be put into bins
    if not has_numbers_C.any():
        return fit_constant(train)
    model = HistGradientBoostingClassifier(max_iter=MAX_TREES, early_stopping=True, random_state=seed)
    train_NC = train_NC[:, has_numbers_C]
    if units_N is None or weights_N is None:
        model.fit(train_NC, train.labels_N, sample_weight=weights_N)
    else:  # both halves of a row that counts impressions are held out, or neither
        fitted_N, held_out_N = inner_split(train.labels_N, seed, units_N=units_N)
        model.fit(
            train_NC[fitted_N],
            train.labels_N[fitted_N],
            sample_weight=weights_N[fitted_N],
            X_val=train_NC[held_out_N],
            y_val=train.labels_N[held_out_N],
            sample_weight_val=weights_N[held_out_N],
        )

    def predict(encoded: EncodedRows, rows: ExpandedRows) -> Probabilities:
        data_NC = columns.of(encoded)
        if categories:
            data_NC[:, categories] = encoder.transform(data_NC[:, categories])
        return np.asarray(model.predict_proba(data_NC[:, has_numbers_C])[:, 1])

    return BaselineFit(predict, f"{model.n_iter_} trees")


class _WeightedEncoder:
    """Does what TargetEncoder does, of rows with weights, which that does not take: replaces codes by click rates."""

    def __init__(self, weights_N: Matrix, folds_N: npt.NDArray[np.int64]) -> None:
        self._weights_N, self._folds_N = weights_N, folds_N
        self._rates: list[Matrix] = []

    def fit_transform(self, codes_NC: Matrix, labels_N: npt.NDArray[np.float32]) -> Matrix:
        """Return the rate that each code has in the other folds [N, C], and keep those of all rows."""
        clicks_N = self._weights_N * labels_N
        encoded = []
        for codes_N in codes_NC.T.astype(np.int64):
            encoded.append(out_of_fold(codes_N, labels_N, self._folds_N, self._weights_N)[0])
            clicks_V, rows_V = (
                np.bincount(codes_N, counts_N).astype(np.float64) for counts_N in (clicks_N, self._weights_N)
            )
            self._rates.append(np.append(smoothed_rates(clicks_V, rows_V), 0.0))  # the last of an unknown code
        return np.stack(encoded, 1)

    def transform(self, codes_NC: Matrix) -> Matrix:
        """Return the rates of codes [N, C]."""
        columns = codes_NC.T.astype(np.int64)
        return np.stack([rates_V[codes_N] for rates_V, codes_N in zip(self._rates, columns, strict=True)], 1)
