"""Target statistics against a brute-force reference, and that no row's own label is ever among its numbers."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from app.features.schema import parse_schema
from app.models.preprocessing import Preprocessing
from app.models.target_statistics import MAX_RATE
from app.training.architectures import ModelConfig
from app.training.data.dataset import Dataset
from app.training.evaluation.predict import predict
from app.training.loop.trainer import Trainer
from app.training.loop.trainer_config import TrainerConfig
from app.training.preprocessing.click_rates import (
    MAX_PRIOR_WEIGHT,
    MIN_PRIOR_WEIGHT,
    deal_folds,
    out_of_fold,
    prior_weight,
    smoothed_rates,
)
from app.training.preprocessing.encode import EncodedRows, encode
from app.training.preprocessing.expand import ExpandedRows, expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from app.training.preprocessing.target_statistics import ScoreTest, TargetStatisticsFit

SCHEMA = parse_schema("""\
version: 1
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: city, entity: context, type: categorical}
  - {name: hour, entity: context, type: numeric, buckets: 4}
  - {name: likes, entity: user, type: multi_categorical, max_length: 2}
  - {name: item_id, entity: item, type: categorical, id: true}
  - {name: brand, entity: item, type: categorical}
""")
PAIRS = (("user_id", "user_id"), ("city", "hour"), ("item_id", "item_id"), ("user_id", "item_id"), ("hour", "brand"))


def rows_of(count: int, labels_N: np.ndarray, seed: int = 0) -> tuple[Preprocessing, EncodedRows, ExpandedRows]:
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(0, size, count) for name, size in (("user_id", 12), ("city", 5), ("hour", 24))}
    user = pl.DataFrame({**columns, "likes": [["a", "b"]] * count})
    items = rng.integers(0, 15, count)
    item = pl.DataFrame({"item_id": items, "brand": items % 4})
    encoded = encode(Dataset("made", SCHEMA, user, item, labels_N.astype(np.float32), None, "x"))
    preprocessing = PreprocessingFit(1).fit(SCHEMA, encoded)
    return preprocessing, encoded, expand(preprocessing, encoded)


def some_labels(count: int, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(count) < 0.3).astype(np.float64)


@st.composite
def keyed_labels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw keys, labels, folds and weights of some rows."""
    count = draw(st.integers(2, 60))
    keys = draw(st.lists(st.integers(-3, 6), min_size=count, max_size=count))
    labels = draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=count, max_size=count))
    folds = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    weights = draw(st.lists(st.sampled_from([1.0, 0.5, 3.0]), min_size=count, max_size=count))
    return np.array(keys), np.array(labels), np.array(folds), np.array(weights)


@given(keyed_labels())
def test_rates_are_those_of_the_other_folds_counted_one_by_one(given_rows: tuple[np.ndarray, ...]) -> None:
    keys, labels, folds, weights = given_rows
    rate_N, others_N = out_of_fold(keys, labels, folds, weights)
    for row, (key, fold) in enumerate(zip(keys, folds, strict=True)):
        clicks: dict[int, float] = defaultdict(float)
        rows: dict[int, float] = defaultdict(float)
        for other_key, label, other_fold, weight in zip(keys, labels, folds, weights, strict=True):
            if other_fold != fold:
                clicks[other_key] += weight * label
                rows[other_key] += weight
        p = (sum(clicks.values()) + 0.5) / (sum(rows.values()) + 1)
        prior = prior_weight(np.array(list(clicks.values())), np.array(list(rows.values())))
        smoothed = (clicks.get(key, 0.0) + prior * p) / (rows.get(key, 0) + prior)
        expected = math.log(smoothed / (1 - smoothed)) - math.log(p / (1 - p))
        assert rate_N[row] == pytest.approx(max(-MAX_RATE, min(MAX_RATE, expected)), abs=1e-9)
        assert others_N[row] == rows.get(key, 0)


@given(keyed_labels(), st.integers(0, 1000))
def test_a_rows_own_label_is_not_in_its_numbers(given_rows: tuple[np.ndarray, ...], row: int) -> None:
    keys, labels, folds, weights = given_rows
    row %= len(keys)
    other = labels.copy()
    other[row] = 1 - other[row]
    for before, after in zip(
        out_of_fold(keys, labels, folds, weights), out_of_fold(keys, other, folds, weights), strict=True
    ):
        assert before[row] == after[row]


def test_the_prior_weighs_what_the_spread_of_the_keys_says() -> None:
    """Of keys that draw their rates from a beta distribution, the weight is its a + b; beyond chance, none is left."""
    rng = np.random.default_rng(3)
    rows_V = rng.integers(5, 200, 4000)
    clicks_V = rng.binomial(rows_V, rng.beta(3.0, 9.0, 4000)).astype(np.float64)
    assert prior_weight(clicks_V, rows_V) == pytest.approx(12.0, rel=0.15)
    alike_V = rng.binomial(rows_V, 0.25).astype(np.float64)
    assert prior_weight(alike_V, rows_V) > 500
    assert prior_weight(rows_V / 4, rows_V) == MAX_PRIOR_WEIGHT, "sampled negatives: less spread than chance"
    assert prior_weight(np.where(rows_V % 2, rows_V, 0).astype(np.float64), rows_V) == MIN_PRIOR_WEIGHT
    assert prior_weight(np.zeros(3), np.array([1, 2, 3])) == MAX_PRIOR_WEIGHT
    assert np.isfinite(smoothed_rates(np.array([0.0, 9.0, 5.0]), np.array([0, 9, 10]))).all()


def test_held_out_rows_have_the_numbers_of_all_training_rows_and_training_rows_those_of_other_folds() -> None:
    labels_N = some_labels(500)
    preprocessing, encoded, rows = rows_of(500, labels_N)
    extended, parts = TargetStatisticsFit(known=PAIRS).extend(preprocessing, {"train": rows, "test": rows})
    user_T = preprocessing.layout("user").expanded_width
    assert [list(extended.layout(side).statistics) for side in ("user", "item")] == [
        ["user_id:rate", "city+hour:rate", "user_id:count", "city+hour:count"],
        ["item_id:rate", "item_id:count"],
    ]
    assert extended.rows == preprocessing.rows + 6
    again = expand(extended, encoded)  # by the module that is served
    for tensor, expected in zip(parts["test"], again, strict=True):
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)
    train, test = parts["train"], parts["test"]
    assert torch.equal(train.rows_NT, test.rows_NT)
    numbers = {name: slot.start for name, slot in extended.vectors.items() if name.endswith((":rate", ":count"))}
    same = [column for column in range(test.x_NT.shape[1]) if torch.equal(train.x_NT[:, column], test.x_NT[:, column])]
    across = list(range(test.rows_NT.shape[1], test.x_NT.shape[1]))
    assert set(same) == set(range(test.x_NT.shape[1])) - set(numbers.values()) - set(across)
    assert len(across) == 4
    folds_N = np.random.default_rng(0).permutation(500) % 10
    rate_N, _ = out_of_fold(rows.rows_NT[:, 0].numpy(), labels_N, folds_N, np.ones(len(labels_N)))
    np.testing.assert_allclose(train.x_NT[:, user_T].numpy(), rate_N, atol=1e-6)
    rows_N = np.unique(rows.rows_NT[:, 0].numpy(), return_inverse=True)[1]
    clicks_V, rows_V = np.bincount(rows_N, labels_N), np.bincount(rows_N)
    np.testing.assert_allclose(test.x_NT[:, user_T].numpy(), smoothed_rates(clicks_V, rows_V)[rows_N], atol=1e-6)


def test_unseen_keys_and_pairs_have_the_prior() -> None:
    preprocessing, _, rows = rows_of(300, some_labels(300))
    strange = ExpandedRows(torch.zeros_like(rows.rows_NT), rows.x_NT, rows.labels_N)  # the out-of-vocabulary row
    extended, parts = TargetStatisticsFit(known=PAIRS).extend(preprocessing, {"train": rows, "test": strange})
    rates = [slot.start for name, slot in extended.vectors.items() if name.endswith(":rate")]
    counts = [slot.start for name, slot in extended.vectors.items() if name.endswith(":count")]
    across = parts["test"].x_NT[:, parts["test"].rows_NT.shape[1] :]
    assert not parts["test"].x_NT[:, rates].any()
    assert not across[:, :2].any()
    assert (parts["test"].x_NT[:, counts] < parts["train"].x_NT[:, counts].mean(0) - 1).all()
    assert torch.equal(across[:, 2:], extended.target_statistics("across").unseen_P.expand(300, -1))


def test_a_model_learns_nothing_from_labels_shuffled_within_a_key() -> None:
    """Were a row's own label in its numbers, the loss of training rows would fall, and the AUC of others leave 1/2."""
    count = 6000
    preprocessing, _, rows = rows_of(count, np.zeros(count))
    labels_N = torch.zeros(count)
    generator = torch.Generator().manual_seed(0)
    users_N = rows.rows_NT[:, 0]
    for user in users_N.unique():
        own = (users_N == user).nonzero().flatten()
        labels_N[own[torch.randperm(len(own), generator=generator)[: len(own) // 3]]] = 1.0
    parts = {part: rows._replace(labels_N=labels_N).take(s)
             for part, s in (("train", slice(0, 4000)), ("validation", slice(4000, None)))}  # fmt: skip
    extended, parts = TargetStatisticsFit(known=PAIRS).extend(preprocessing, parts)
    model = ModelConfig("wide_deep", hidden=(16,), dropout=0.0).build(extended)
    result = Trainer(TrainerConfig(epochs=4, batch_size=200, patience=9), model, extended).fit(*parts.values())
    auc = roc_auc_score(parts["validation"].labels_N, predict(model, parts["validation"]))
    assert auc == pytest.approx(0.5, abs=0.06), "four standard errors"
    constant = -(math.log(1 / 3) / 3 + 2 * math.log(2 / 3) / 3)
    assert result.epochs[-1].train_loss > constant - 0.02


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_labels_shuffled_within_a_key_leave_nothing_to_learn(seed: int) -> None:
    """Every user has the same share of clicks, on rows at random: no number may tell which."""
    rng = np.random.default_rng(seed)
    count = 2400
    keys_N = np.repeat(np.arange(count // 12), 12)
    labels_N = np.concatenate([rng.permutation([1.0] * 4 + [0.0] * 8) for _ in range(count // 12)])
    rate_N, _ = out_of_fold(keys_N, labels_N, rng.permutation(count) % 10, np.ones(count))
    # A rate is that of the key's other rows, so it falls where a row was clicked: the prior must outweigh that.
    assert np.abs(rate_N).max() < 0.02
    held_out_N = rng.permutation(labels_N)
    assert roc_auc_score(held_out_N, smoothed_rates(np.full(200, 4.0), np.full(200, 12))[keys_N]) == 0.5


def test_the_score_test_is_twice_the_gain_in_likelihood() -> None:
    rng = np.random.default_rng(0)
    x_NC = rng.normal(size=(20_000, 2))
    new_N = rng.normal(size=20_000) + x_NC[:, 0]
    labels_N = (rng.random(20_000) < 1 / (1 + np.exp(-(x_NC[:, 0] - 0.5 + 0.1 * new_N)))).astype(np.float64)
    from sklearn.linear_model import LogisticRegression

    def likelihood(x: np.ndarray) -> float:
        p_N = LogisticRegression(C=1e6).fit(x, labels_N).predict_proba(x)[:, 1]
        return float(np.log(np.where(labels_N == 1, p_N, 1 - p_N)).sum())

    gain = 2 * (likelihood(np.column_stack([x_NC, new_N])) - likelihood(x_NC))
    test = ScoreTest(x_NC, labels_N, np.ones(len(labels_N)))
    assert test(new_N) == pytest.approx(gain, rel=0.05)
    assert test(-new_N) == 0.0
    assert test(x_NC[:, 1]) == pytest.approx(0.0, abs=1.0)


def test_pairs_that_decide_are_found_and_no_others() -> None:
    preprocessing, _, rows = rows_of(6000, np.zeros(6000))
    user, item = (rows.rows_NT[:, preprocessing.vectors[name].start].numpy() for name in ("user_id", "item_id"))
    rng = np.random.default_rng(0)
    labels_N = torch.from_numpy((rng.random(6000) < np.where((user + item) % 3 == 0, 0.7, 0.2)).astype(np.float32))
    found, _ = TargetStatisticsFit("pairs", across=True).extend(
        preprocessing, {"train": rows._replace(labels_N=labels_N)}
    )
    first, *others = found.target_statistics("across").pairs
    assert first == ("user_id", "item_id")
    assert set(others) <= {("user_id", "brand")}, "a brand is a group of items"
    assert found.target_statistics("user").pairs == (("user_id", "user_id"),)
    assert found.target_statistics("item").pairs == (("item_id", "item_id"),), "a brand has too few values"
    without, _ = TargetStatisticsFit("pairs").extend(preprocessing, {"train": rows._replace(labels_N=labels_N)})
    assert not without.target_statistics("across").pairs


@pytest.mark.parametrize("name", ["deepfm", "wide_deep"])
def test_training_rows_give_the_logits_that_serving_gives(name: str) -> None:
    preprocessing, encoded, rows = rows_of(200, some_labels(200))
    extended, parts = TargetStatisticsFit(known=PAIRS).extend(preprocessing, {"train": rows, "test": rows})
    model = ModelConfig(name).build(extended).eval()
    slots = [torch.from_numpy(part) for part in (*encoded.user, *encoded.item)]
    torch.testing.assert_close(predict(model, parts["test"]), model(*slots).detach())


def test_of_a_row_that_counts_impressions_neither_half_knows_the_other() -> None:
    """Each key has one row of the file: its rate in the other folds is that of a key that nobody has seen."""
    units_N = np.repeat(np.arange(200), 2)
    labels_N = np.tile([1.0, 0.0], 200)
    folds_N = deal_folds(400, 10, 3, units_N)
    assert (folds_N[::2] == folds_N[1::2]).all()
    assert len(set(folds_N.tolist())) == 10
    rate_N, others_N = out_of_fold(units_N, labels_N, folds_N, np.tile([1.0, 9.0], 200))
    assert (others_N == 0).all()
    assert np.abs(rate_N).max() < 1e-9
    preprocessing, _, rows = rows_of(400, labels_N)
    halves = rows.take(torch.arange(200).repeat_interleave(2))._replace(
        labels_N=torch.from_numpy(labels_N).float(),
        units_N=torch.from_numpy(units_N),
        weights_N=torch.tensor([1.0, 9.0]).repeat(200),
    )
    _, parts = TargetStatisticsFit(known=PAIRS).extend(preprocessing, {"train": halves})
    x_NT = parts["train"].x_NT
    assert x_NT.shape[1] > rows.x_NT.shape[1]
    assert torch.equal(x_NT[::2], x_NT[1::2]), "the numbers of both halves are the same"
