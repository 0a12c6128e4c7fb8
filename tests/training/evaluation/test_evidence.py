"""What the test part shows is said with its clicks, its errors and a verdict."""

from __future__ import annotations

import numpy as np
import pytest

from app.training.evaluation.baselines import CONSTANT
from app.training.evaluation.evidence import evidence, is_too_good
from app.training.evaluation.intervals import paired_difference
from app.training.evaluation.metrics import evaluate
from app.training.evaluation.verdict import Verdict

GENERATOR = np.random.default_rng(5)


def said(labels_N: np.ndarray, probabilities_N: np.ndarray) -> str:
    constant_N = np.full(len(labels_N), labels_N.mean())
    difference = paired_difference(labels_N, probabilities_N, constant_N)
    verdict = Verdict((), {"test": {CONSTANT: difference}})
    clicks = int(labels_N.sum())
    return "\n".join(evidence(evaluate(labels_N, probabilities_N), verdict, len(labels_N), clicks))


def test_three_clicks_prove_nothing_and_that_is_said() -> None:
    labels_N = np.zeros(500)
    labels_N[[7, 70, 300]] = 1
    words = said(labels_N, np.full(500, 0.006) + GENERATOR.random(500) / 300)
    assert "has 3 clicks in 500 rows" in words
    assert "(standard errors)" in words
    assert "It is not shown to be better than a constant" in words
    assert "Only 3 test rows have a click" in words


@pytest.mark.parametrize(
    ("sign", "verdict"), [(1, "It is better than a constant"), (-1, "It is worse than a constant")]
)
def test_with_enough_rows_there_is_a_verdict(sign: int, verdict: str) -> None:
    logits_N = GENERATOR.normal(0, 1, 4000)
    labels_N = (GENERATOR.random(4000) < 1 / (1 + np.exp(-logits_N))).astype(float)
    words = said(labels_N, 1 / (1 + np.exp(-sign * logits_N)))
    assert verdict in words
    assert "Only" not in words


def test_few_rows_without_a_click_are_few_too() -> None:
    labels_N = np.ones(200)
    labels_N[:9] = 0
    assert "Only 9 test rows have no click" in said(labels_N, np.full(200, 0.9) + GENERATOR.random(200) / 20)


def test_the_errors_are_those_of_the_intervals() -> None:
    labels_N = (GENERATOR.random(1000) < 0.3).astype(float)
    p_N = np.clip(0.3 + 0.2 * (labels_N - 0.3) + GENERATOR.normal(0, 0.1, 1000), 0.01, 0.99)
    metrics = evaluate(labels_N, p_N)
    error = (metrics["log_loss_high"] - metrics["log_loss_low"]) / 2 / 1.96
    assert f"log loss {metrics['log_loss']:.4f} ± {error:.4f}" in said(labels_N, p_N)


@pytest.mark.parametrize(("auc", "too_good"), [(0.976, False), (0.99, True), (1.0, True), (float("nan"), False)])
def test_too_good_to_be_true(auc: float, too_good: bool) -> None:
    assert is_too_good({"auc": auc}) is too_good
