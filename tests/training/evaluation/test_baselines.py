"""The baselines learn from the rows that the model is trained on, and accept values that these do not have."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from app.features.schema import parse_schema
from app.training.data.dataset import Dataset
from app.training.evaluation.baselines import fit_baselines, predict_trees
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from app.training.preprocessing.sampling import sample_both
from tests.training.preprocessing.test_preprocessing_fit import some_data


def test_each_baseline_learns_what_it_can() -> None:
    data = some_data(600)
    by_gender = (data.user["gender"] == "F").to_numpy().astype(np.float32)
    flipped = np.random.default_rng(0).random(600) < 0.1
    data = data.take(np.arange(600))
    object.__setattr__(data, "labels_N", np.where(flipped, 1 - by_gender, by_gender).astype(np.float32))
    order = np.random.default_rng(1).permutation(600)
    train, test = encode(data.take(order[:400])), encode(data.take(order[400:]))
    preprocessing = PreprocessingFit().fit(data.schema, train)
    rows = expand(preprocessing, train), expand(preprocessing, test)
    result = fit_baselines(preprocessing, (train, rows[0]), (test, rows[1]))
    assert list(result) == ["constant", "logistic_regression", "gradient_boosting"]
    assert result["constant"]["auc"] == 0.5
    for name in ("logistic_regression", "gradient_boosting"):
        assert result[name]["auc"] > 0.85
        assert result[name]["log_loss"] < result["constant"]["log_loss"] - 0.2
    again = fit_baselines(preprocessing, (train, rows[0]), (test, rows[1]))
    assert result == again


def test_values_that_training_never_saw() -> None:
    data = some_data(300)
    train, test = encode(data.take(np.arange(20))), encode(data.take(np.arange(20, 300)))
    preprocessing = PreprocessingFit().fit(data.schema, train)
    result = fit_baselines(preprocessing, (train, expand(preprocessing, train)), (test, expand(preprocessing, test)))
    assert all(np.isfinite(metrics["log_loss"]) for metrics in result.values())


def test_large_data_is_sampled_for_fitting_and_predicted_in_chunks() -> None:
    data = some_data(300)
    encoded = encode(data)
    preprocessing = PreprocessingFit().fit(data.schema, encoded)
    rows = expand(preprocessing, encoded)
    whole = fit_baselines(preprocessing, (encoded, rows), (encoded, rows))
    chunked = fit_baselines(preprocessing, (encoded, rows), (encoded, rows), chunk_rows=70)
    assert chunked == whole, "chunks change nothing"
    some, some_rows = sample_both(encoded, rows, 1, 90)
    assert len(some.labels_N) == 90 == len(some_rows.labels_N)
    assert torch.equal(expand(preprocessing, some).rows_NT, some_rows.rows_NT), "the same rows of both"
    fewer = fit_baselines(preprocessing, (encoded, rows), (encoded, rows), chunk_rows=70, max_rows=90)
    assert fewer["constant"] == whole["constant"]
    assert fewer["logistic_regression"] != whole["logistic_regression"]


def test_numbers_that_are_never_there_leave_the_share_of_clicks() -> None:
    schema = parse_schema(
        "fields:\n  - {name: n, entity: user, type: numeric}\n  - {name: m, entity: item, type: numeric}\n"
    )
    nothing = pl.DataFrame({"n": [None] * 40}), pl.DataFrame({"m": [None] * 40})
    labels = np.array([n % 4 == 0 for n in range(40)], np.float32)
    encoded = encode(Dataset("tiny", schema, *nothing, labels, None, "x"))
    assert predict_trees(schema, encoded, encoded).tolist() == [0.25] * 40
