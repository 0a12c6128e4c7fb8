"""Fit LightGBM, where it is installed, to raw numbers, categories as such and frequent list values."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch

from app.features.schema import FeatureSchema
from app.training.evaluation.baseline_fit import BaselineFit, Probabilities
from app.training.evaluation.inner_split import inner_split
from app.training.evaluation.tree_columns import TreeColumns
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows

LEARNING_RATE, MAX_TREES, PATIENCE = 0.2, 200, 20
"""Half as many trees as at its own 0.1 are within 0.001 AUC of them: a baseline should not outlast the model."""


def has_lightgbm() -> bool:
    """Return whether the package is installed: the extra `boosting` brings it."""
    return find_spec("lightgbm") is not None


def fit_lightgbm(
    schema: FeatureSchema,
    train: EncodedRows,
    seed: int = 0,
    learning_rate: float = LEARNING_RATE,
    max_trees: int = MAX_TREES,
    patience: int = PATIENCE,
) -> BaselineFit:
    """Fit trees until so many of them have not lowered the log loss of a tenth of the rows, held out.

    Raises:
        ImportError: LightGBM is not installed.
    """
    import lightgbm

    columns = TreeColumns(schema, train)
    train_NC = columns.of(train)
    units_N = None if train.weights is None else train.weights.units_N
    fitted_N, held_out_N = inner_split(train.labels_N, seed, units_N=units_N)
    weights_N = None if train.weights is None else train.weights.training_N
    fitted_weights, held_out_weights = (
        None if weights_N is None else weights_N[rows_N] for rows_N in (fitted_N, held_out_N)
    )
    data = lightgbm.Dataset(
        train_NC[fitted_N],
        train.labels_N[fitted_N],
        weight=fitted_weights,
        categorical_feature=columns.categories,
        params={"verbosity": -1},
    )
    booster = lightgbm.train(
        {
            "objective": "binary",
            "metric": "binary_logloss",
            "learning_rate": learning_rate,
            "seed": seed,
            "deterministic": True,
            "num_threads": torch.get_num_threads(),
            "verbosity": -1,
        },
        data,
        num_boost_round=max_trees,
        valid_sets=[data.create_valid(train_NC[held_out_N], train.labels_N[held_out_N], weight=held_out_weights)],
        callbacks=[lightgbm.early_stopping(patience, verbose=False)],
    )

    def predict(encoded: EncodedRows, rows: ExpandedRows) -> Probabilities:
        return np.asarray(booster.predict(columns.of(encoded), num_iteration=booster.best_iteration), np.float64)

    return BaselineFit(predict, f"{booster.best_iteration} trees")
