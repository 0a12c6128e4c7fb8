"""Fits what all models are compared with, on all training rows: a constant, a linear model, two of boosted trees."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from app.features.schema import FeatureSchema
from app.models.preprocessing import Preprocessing
from app.training.evaluation.baseline_fit import BaselineFit, Probabilities, fit_constant
from app.training.evaluation.inner_split import inner_split
from app.training.evaluation.lightgbm_baseline import fit_lightgbm
from app.training.evaluation.linear_baseline import fit_linear
from app.training.evaluation.tree_columns import TreeColumns
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows

MAX_TREES, PATIENCE = 1_000, 50
LIGHTGBM_RATE = 0.05
Fit = Callable[[Preprocessing, EncodedRows, ExpandedRows, int], BaselineFit]


def fit_catboost(schema: FeatureSchema, train: EncodedRows, seed: int) -> BaselineFit:
    """Fit CatBoost with its defaults, categories as such, until a tenth of the rows, held out, gains nothing more."""
    import pandas
    from catboost import CatBoostClassifier

    columns = TreeColumns(schema, train)

    def frame(rows: EncodedRows) -> pandas.DataFrame:
        data = pandas.DataFrame(columns.of(rows))
        return data.astype(dict.fromkeys(columns.categories, np.int64))

    data, (fitted_N, held_out_N) = frame(train), inner_split(train.labels_N, seed)
    model = CatBoostClassifier(
        iterations=MAX_TREES,
        early_stopping_rounds=PATIENCE,
        cat_features=columns.categories,
        random_seed=seed,
        thread_count=torch.get_num_threads(),
        allow_writing_files=False,
        verbose=False,
    )
    parts = ((data.iloc[rows_N], train.labels_N[rows_N]) for rows_N in (fitted_N, held_out_N))
    model.fit(*next(parts), eval_set=next(parts))

    def predict(encoded: EncodedRows, rows: ExpandedRows) -> Probabilities:
        return np.asarray(model.predict_proba(frame(encoded))[:, 1], np.float64)

    return BaselineFit(predict, f"{model.get_best_iteration() + 1} trees")


PEERS: dict[str, Fit] = {
    "constant": lambda preprocessing, train, rows, seed: fit_constant(train),
    "logistic_regression": lambda preprocessing, train, rows, seed: fit_linear(preprocessing, rows, seed).as_baseline(),
    "lightgbm": lambda preprocessing, train, rows, seed: fit_lightgbm(
        preprocessing.schema, train, seed, LIGHTGBM_RATE, MAX_TREES, PATIENCE
    ),
    "catboost": lambda preprocessing, train, rows, seed: fit_catboost(preprocessing.schema, train, seed),
}


def constant_log_loss(train_labels_N: npt.NDArray[np.float32], labels_N: npt.NDArray[np.float32]) -> float:
    """Return the log loss, in nats, of predicting the training rows' share of clicks."""
    share, observed = float(train_labels_N.mean()), float(labels_N.mean(dtype=np.float64))
    return -(observed * math.log(share) + (1 - observed) * math.log(1 - share))
