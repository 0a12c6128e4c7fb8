"""Reliability diagrams and ECE equal their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from app.training.evaluation.platt import sigmoid
from app.training.evaluation.reliability import BINS, reliability
from tests.training.evaluation.test_platt import draw_labels


def test_reliability_is_the_share_of_clicks_in_each_bin() -> None:
    logits, labels = draw_labels(1.0, 0.0)
    result = reliability(labels, sigmoid(logits.astype(np.float64)))
    assert result.rows_G.sum() == len(labels)
    assert result.rows_G.min() > len(labels) / BINS * 0.9
    assert (result.predicted_G * result.rows_G).sum() == pytest.approx(sigmoid(logits.astype(np.float64)).sum())
    assert (result.observed_G * result.rows_G).sum() == pytest.approx(labels.sum())
    np.testing.assert_allclose(result.observed_G, result.predicted_G, atol=0.06)
    assert result.ece < 0.015
    assert reliability(labels, sigmoid(2 * logits.astype(np.float64) + 1)).ece > 0.1


def test_ece_is_its_definition_and_equal_predictions_share_a_bin() -> None:
    labels = np.array([1, 0, 0, 0, 1, 1], np.float32)
    p = np.array([0.2, 0.2, 0.2, 0.2, 0.9, 0.9])
    result = reliability(labels, p)
    assert result.predicted_G.tolist() == pytest.approx([0.2, 0.9])
    assert result.observed_G.tolist() == pytest.approx([0.25, 1.0])
    assert result.ece == pytest.approx((4 * 0.05 + 2 * 0.1) / 6)
    assert reliability(labels, np.full(6, 0.5)).rows_G.tolist() == [6]
