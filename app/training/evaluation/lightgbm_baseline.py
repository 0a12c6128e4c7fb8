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

MAX_TREES = 300
PATIENCE = 30
"""It stops when so many trees have not lowered the log loss of the rows held out."""
PARAMETERS = {"objective": "binary", "metric": "binary_logloss", "learning_rate": 0.1, "num_leaves": 31}


def has_lightgbm() -> bool:
    """Return whether the package is installed: the extra `boosting` brings it."""
    return find_spec("lightgbm") is not None


def fit_lightgbm(schema: FeatureSchema, train: EncodedRows, seed: int = 0) -> BaselineFit:
    """Fit trees until a tenth of the rows, held out, gains nothing more. Raises ImportError where it is missing."""
    import lightgbm

    columns = TreeColumns(schema, train)
    train_NC = columns.of(train)
    fitted_N, held_out_N = inner_split(train.labels_N, seed)
    data = lightgbm.Dataset(
        train_NC[fitted_N], train.labels_N[fitted_N], categorical_feature=columns.categories, params={"verbosity": -1}
    )
    booster = lightgbm.train(
        {**PARAMETERS, "seed": seed, "num_threads": torch.get_num_threads(), "verbosity": -1, "deterministic": True},
        data,
        num_boost_round=MAX_TREES,
        valid_sets=[data.create_valid(train_NC[held_out_N], train.labels_N[held_out_N])],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )

    def predict(encoded: EncodedRows, rows: ExpandedRows) -> Probabilities:
        return np.asarray(booster.predict(columns.of(encoded), num_iteration=booster.best_iteration), np.float64)

    return BaselineFit(predict, f"{booster.best_iteration} trees")
