"""Metrics equal their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from app.training.evaluation.metrics import evaluate, grouped_auc


def pair_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of (click, no click) pairs in the right order, ties counting half."""
    differences = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return float(((differences > 0) + 0.5 * (differences == 0)).mean())


def test_metrics_are_their_definitions() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300).astype(np.float32)
    p = np.round(rng.random(300) * 0.8 + 0.1, 2).astype(np.float32)
    result = evaluate(labels, p)
    p64 = p.astype(np.float64)
    assert result["auc"] == pytest.approx(pair_auc(labels, p))
    assert result["log_loss"] == pytest.approx(-np.mean(np.where(labels == 1, np.log(p64), np.log1p(-p64))))
    assert result["calibration"] == pytest.approx(p64.sum() / labels.sum())
    assert 0 < result["pr_auc"] < 1


def test_what_cannot_be_said_is_nan_not_an_error() -> None:
    result = evaluate(np.zeros(4, np.float32), np.full(4, 0.25, np.float32))
    assert math.isnan(result["auc"])
    assert math.isnan(result["calibration"])
    assert result["log_loss"] == pytest.approx(-math.log(0.75))


def test_grouped_auc_weighs_groups_by_rows_and_skips_those_with_one_label() -> None:
    rng = np.random.default_rng(2)
    groups = rng.choice(["a", "b", "c", "d"], 200)
    labels = rng.integers(0, 2, 200)
    labels[groups == "d"] = 1
    scores = rng.random(200)
    parts = [(groups == g) for g in "abc"]
    expected = sum(part.sum() * pair_auc(labels[part], scores[part]) for part in parts) / sum(p.sum() for p in parts)
    assert grouped_auc(groups, labels, scores) == pytest.approx(expected)
    assert math.isnan(grouped_auc(np.array(["d"]), np.array([1]), np.array([0.5])))
