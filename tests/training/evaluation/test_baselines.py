"""The baselines learn from the rows that the model is trained on, and accept values that these do not have."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.metrics import log_loss

from app.features.schema import parse_schema
from app.models.preprocessing import Preprocessing
from app.training.data.dataset import Dataset
from app.training.data.row_weights import row_weights
from app.training.evaluation import baselines, linear_baseline
from app.training.evaluation.baselines import BASELINES, LIGHTGBM, fit_baselines
from app.training.evaluation.inner_split import inner_folds, inner_split
from app.training.evaluation.tree_columns import TreeColumns
from app.training.preprocessing.encode import EncodedRows, encode
from app.training.preprocessing.expand import ExpandedRows, expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from app.training.preprocessing.sampling import sample_both
from tests.training.preprocessing.test_preprocessing_fit import some_data

Parts = dict[str, tuple[EncodedRows, ExpandedRows]]
FITTED = [name for name in BASELINES if name != LIGHTGBM or find_spec("lightgbm")]


def parts_of(data: Dataset, **index: np.ndarray) -> tuple[Preprocessing, Parts]:
    """Encode these rows of the data; preprocessing learns from those called `train`."""
    encoded = {part: encode(data.take(rows)) for part, rows in index.items()}
    preprocessing = PreprocessingFit().fit(data.schema, encoded["train"])
    return preprocessing, {part: (slots, expand(preprocessing, slots)) for part, slots in encoded.items()}


def by_gender(rows: int = 600) -> Dataset:
    """Make rows whose label is the user's gender, but for a tenth of them."""
    data = some_data(rows)
    labels = (data.user["gender"] == "F").to_numpy()
    flipped = np.random.default_rng(0).random(rows) < 0.1
    return replace(data, labels_N=(labels ^ flipped).astype(np.float32))


def test_each_baseline_learns_what_it_can() -> None:
    order = np.random.default_rng(1).permutation(600)
    made = parts_of(by_gender(), train=order[:300], validation=order[300:400], test=order[400:])
    result = fit_baselines(*made)
    assert list(result) == FITTED
    for part, rows in (("validation", 100), ("test", 200)):
        constant = result["constant"].metrics[part]
        assert constant["auc"] == 0.5
        for name in FITTED[1:]:
            assert result[name].metrics[part]["auc"] > 0.8
            assert result[name].metrics[part]["log_loss"] < constant["log_loss"] - 0.15
            assert result[name].probabilities[part].shape == (rows,)
    again = fit_baselines(*made)
    assert {name: r.metrics for name, r in result.items()} == {name: r.metrics for name, r in again.items()}


def test_without_lightgbm_the_others_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "has_lightgbm", lambda: False)
    made = parts_of(some_data(80), train=np.arange(60), test=np.arange(60, 80))
    assert list(fit_baselines(*made)) == ["constant", "logistic_regression", "gradient_boosting"]
    assert list(fit_baselines(*made, names=("logistic_regression", "constant"))) == ["constant", "logistic_regression"]


def test_values_that_training_never_saw() -> None:
    result = fit_baselines(*parts_of(some_data(300), train=np.arange(20), test=np.arange(20, 300)))
    assert all(np.isfinite(baseline.metrics["test"]["log_loss"]) for baseline in result.values())


def test_large_data_is_sampled_for_fitting_and_predicted_in_chunks() -> None:
    everything = np.arange(300)
    preprocessing, parts = parts_of(some_data(300), train=everything, test=everything)
    names = tuple(FITTED[:3])
    whole = fit_baselines(preprocessing, parts, names=names)
    chunked = fit_baselines(preprocessing, parts, names=names, chunk_rows=70)
    for name in names:
        np.testing.assert_array_equal(chunked[name].probabilities["test"], whole[name].probabilities["test"])
    some, some_rows = sample_both(*parts["train"], 1, 90)
    assert len(some.labels_N) == 90 == len(some_rows.labels_N)
    assert torch.equal(expand(preprocessing, some).rows_NT, some_rows.rows_NT), "the same rows of both"
    fewer = fit_baselines(preprocessing, parts, names=names, chunk_rows=70, max_rows=90)
    assert fewer["constant"].metrics == whole["constant"].metrics
    assert fewer["logistic_regression"].metrics != whole["logistic_regression"].metrics


def test_numbers_that_are_never_there_leave_the_share_of_clicks() -> None:
    schema = parse_schema(
        "fields:\n  - {name: n, entity: user, type: numeric}\n  - {name: m, entity: item, type: numeric}\n"
    )
    nothing = pl.DataFrame({"n": [None] * 40}), pl.DataFrame({"m": [None] * 40})
    labels = np.array([n % 4 == 0 for n in range(40)], np.float32)
    data = Dataset("tiny", schema, *nothing, labels, None, "x")
    result = fit_baselines(*parts_of(data, train=np.arange(40), test=np.arange(40)))
    assert result["gradient_boosting"].probabilities["test"].tolist() == [0.25] * 40


def test_logistic_regression_is_the_minimum_for_a_c_of_the_grid_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the minimum the gradient of C * (sum of losses) + |w|^2 / 2 is 0: w = C * X'(y - p)."""
    preprocessing, parts = parts_of(by_gender(), train=np.arange(500), test=np.arange(500, 600))
    made: list[linear_baseline.LogisticRegression] = []

    class Kept(linear_baseline.LogisticRegression):  # type: ignore[misc]
        def __init__(self, **options: object) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(linear_baseline, "LogisticRegression", Kept)
    note = fit_baselines(preprocessing, parts, names=("logistic_regression",))["logistic_regression"].note
    model = made[-1]
    assert note == f"C = {model.C:g}, converged"
    assert model.C in linear_baseline.GRID
    rows_NT, x_NT, labels_N = (tensor.numpy() for tensor in parts["train"][1][:3])
    width = rows_NT.shape[1]
    design = csr_matrix(
        (x_NT.ravel().astype(float), rows_NT.ravel(), np.arange(501) * width), (500, preprocessing.rows)
    )
    gap = labels_N - model.predict_proba(design)[:, 1]
    np.testing.assert_allclose(model.coef_[0], model.C * (design.T @ gap), atol=model.C * 500 * 2e-6)


def test_a_search_that_ends_where_it_gets_worse_finds_the_best_of_the_grid() -> None:
    preprocessing, parts = parts_of(by_gender(), train=np.arange(500), test=np.arange(500, 600))
    note = fit_baselines(preprocessing, parts, names=("logistic_regression",))["logistic_regression"].note
    rows = parts["train"][1]
    # Another solver than the baseline's, exact and quick on dense rows.
    design, labels = linear_baseline._sparse(rows, preprocessing.rows).toarray(), rows.labels_N.numpy()
    losses = dict.fromkeys(linear_baseline.GRID, 0.0)
    for fitted, held_out in inner_folds(labels, 0):
        for inverse_l2 in linear_baseline.GRID:
            peer = linear_baseline.LogisticRegression(C=inverse_l2, tol=1e-8, max_iter=5000, solver="newton-cholesky")
            peer.fit(design[fitted], labels[fitted])
            losses[inverse_l2] += log_loss(labels[held_out], peer.predict_proba(design[held_out])[:, 1])
    assert note.startswith(f"C = {min(losses, key=losses.__getitem__):g},")


def test_one_that_has_not_converged_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_baseline, "MAX_ITERATIONS", 1)
    made = parts_of(by_gender(), train=np.arange(500), test=np.arange(500, 600))
    note = fit_baselines(*made, names=("logistic_regression",))["logistic_regression"].note
    assert note.endswith("not converged after 1 iterations")


@pytest.mark.parametrize("clicks", [0, 1, 30, 500])
def test_the_rows_held_out_have_their_share_of_clicks(clicks: int) -> None:
    labels = np.random.default_rng(0).permutation(np.arange(1000) < clicks).astype(np.float32)
    fitted, held_out = inner_split(labels, 1)
    assert sorted([*fitted, *held_out]) == list(range(1000))
    assert len(held_out) == 100
    if clicks >= 30:
        assert labels[held_out].sum() == clicks / 10
    assert len(np.concatenate(inner_split(labels, 1, 60))) == 60


@pytest.mark.parametrize(("clicks", "folds"), [(0, 1), (4, 1), (30, 5), (1_000, 1), (1_980, 5)])
def test_few_clicks_are_held_out_in_turn(clicks: int, folds: int) -> None:
    labels = np.random.default_rng(0).permutation(np.arange(2_000) < clicks).astype(np.float32)
    splits = inner_folds(labels, 1)
    assert len(splits) == folds
    for fitted, held_out in splits:
        assert sorted([*fitted, *held_out]) == list(range(2_000))
    if folds == 5:
        assert sorted(np.concatenate([held_out for _, held_out in splits])) == list(range(2_000))
        assert all(labels[held_out].sum() == clicks / 5 for _, held_out in splits)
    assert all(len(np.concatenate(split)) == 300 for split in inner_folds(labels, 1, 300))


def test_columns_have_codes_by_the_training_rows() -> None:
    data = some_data(60)
    train, other = encode(data.take(np.arange(30))), encode(data.take(np.arange(30, 60)))
    columns = TreeColumns(data.schema, train)
    train_NC, other_NC = columns.of(train), columns.of(other)
    assert train_NC.shape == other_NC.shape
    assert (train_NC[:, columns.categories] >= 0).all()
    assert (other_NC[:, columns.categories] == -1).any(), "users that the training rows do not have"


@pytest.mark.parametrize("name", FITTED)
def test_weights_count_in_every_baseline(name: str) -> None:
    """Rows with a click count five times: each baseline predicts as if there were so many."""
    data = by_gender(600)
    weights_N = np.where(data.labels_N > 0.5, 5.0, 1.0).astype(np.float32)
    weighted = replace(data, weights=row_weights(data.labels_N, weights_N, None, "weighed"))
    order = np.random.default_rng(1).permutation(600)
    means = []
    for rows in (data, weighted):
        made = parts_of(rows, train=order[:400], test=order[400:])
        result = fit_baselines(*made, names=(name,))[name]
        assert result.metrics["test"]["calibration"] == pytest.approx(1.0, abs=0.2)
        means.append(float(result.probabilities["test"].mean()))
    assert means[1] > means[0] + 0.05


@pytest.mark.parametrize("name", FITTED)
def test_a_baseline_of_counted_rows_is_one_of_their_impressions(name: str) -> None:
    """Nine halves of ten are held out together in every inner split, or the rates of a row would be its halves'."""
    data = some_data(500)
    shares = np.where((data.user["gender"] == "F").to_numpy(), 0.4, 0.1)
    clicks = np.random.default_rng(0).binomial(20, shares)
    index_N, column_N = np.nonzero(np.stack([clicks, 20 - clicks], 1))
    counts_N = np.stack([clicks, 20 - clicks], 1)[index_N, column_N].astype(np.float32)
    halves = replace(data.take(index_N), labels_N=(column_N == 0).astype(np.float32))
    halves = replace(halves, weights=row_weights(halves.labels_N, counts_N, None, "counted", index_N))
    is_test_N = index_N >= 400
    made = parts_of(halves, train=np.flatnonzero(~is_test_N), test=np.flatnonzero(is_test_N))
    result = fit_baselines(*made, names=(name,))[name]
    assert result.metrics["test"]["calibration"] == pytest.approx(1.0, abs=0.1)
    predicted = {
        gender: float(
            result.probabilities["test"][(data.user["gender"] == gender).to_numpy()[index_N[is_test_N]]].mean()
        )
        for gender in ("F", "M")
    }
    wanted = {"F": 0.4, "M": 0.1} if name != "constant" else {"F": shares.mean(), "M": shares.mean()}
    assert predicted == pytest.approx(wanted, abs=0.06)


def test_inner_splits_keep_together_what_belongs_together() -> None:
    units_N = np.repeat(np.arange(300), 2)
    labels_N = np.tile([1.0, 0.0], 300)
    labels_N[:500] = 0.0
    for fitted, held_out in [inner_split(labels_N, 0, units_N=units_N), *inner_folds(labels_N, 0, units_N=units_N)]:
        assert not set(units_N[fitted]) & set(units_N[held_out])
        assert len(fitted) + len(held_out) == 600
    folds = inner_folds(labels_N, 0, units_N=units_N)
    assert len(folds) == 5
    assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(600))
