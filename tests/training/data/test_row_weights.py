"""Rows that were thinned out stand for those that are missing in metrics, and are learned from as they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.training.data.row_weights import row_weights

LABELS = st.lists(st.booleans(), min_size=2, max_size=30).map(lambda values: np.array(values, np.float32))


@given(LABELS, st.floats(0.01, 1.0))
def test_of_one_share_a_row_counts_once_in_training(labels_N: np.ndarray, share: float) -> None:
    weights = row_weights(labels_N, None, share, "kept")
    assert weights.training_N == pytest.approx(np.ones(len(labels_N)))
    assert weights.evaluation_N == pytest.approx(np.where(labels_N > 0.5, 1.0, 1 / share), rel=1e-6)
    expected = share if (labels_N <= 0.5).any() else 1.0
    assert weights.negative_rate == pytest.approx(expected)
    assert weights.negatives_offset == pytest.approx(math.log(expected), abs=1e-9)


@given(LABELS, st.data())
def test_of_several_shares_negatives_count_as_if_one_had_been_kept_of_all(
    labels_N: np.ndarray, data: st.DataObject
) -> None:
    count, is_negative_N = len(labels_N), labels_N <= 0.5
    rates_N, own_N = (
        np.array(data.draw(st.lists(st.sampled_from(values), min_size=count, max_size=count)), np.float32)
        for values in ([0.1, 0.25, 1.0], [0.5, 1.0, 4.0])
    )
    weights = row_weights(labels_N, own_N, rates_N, "kept")
    own_N = own_N / own_N.mean()
    assert weights.evaluation_N == pytest.approx(np.where(is_negative_N, own_N / rates_N, own_N), rel=1e-5)
    ratio_N = weights.training_N / weights.evaluation_N
    assert ratio_N == pytest.approx(np.where(is_negative_N, weights.negative_rate, 1.0), rel=1e-5)
    assert weights.training_N.sum() == pytest.approx(own_N.sum(), rel=1e-5), "as many rows as there are"
    assert 0.1 <= weights.negative_rate <= 1 + 1e-9


def test_counts_are_kept_and_each_impression_is_an_observation_of_its_own() -> None:
    labels_N, counts_N = np.array([1, 0, 0], np.float32), np.array([3, 40, 7], np.float32)
    weights = row_weights(labels_N, counts_N, 0.5, "counted", np.array([0, 0, 1]))
    assert weights.training_N.tolist() == [3, 40, 7]
    assert weights.evaluation_N.tolist() == [3, 80, 14]
    assert weights.in_training.squares_N.tolist() == [3, 40, 7]
    assert weights.in_evaluation.squares_N.tolist() == [3, 160, 28], "n times the square of 1 / 0.5"
    single = row_weights(labels_N, counts_N, None, "weighed")
    assert single.in_training.squares_N == pytest.approx(np.square(counts_N / counts_N.mean()))
