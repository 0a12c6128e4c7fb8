"""A model is poor where chance does not explain that the constant or logistic regression is better, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from app.training.evaluation.baselines import BaselineResult
from app.training.evaluation.metrics import evaluate
from app.training.evaluation.verdict import Verdict, judge

PARTS = ("validation", "test")


def judged(noise: float, rows: int = 2000, shift: float = 0.0, others: tuple[str, ...] = ("lightgbm",)) -> Verdict:
    """Judge the truth plus noise by the constant, by logistic regression (noise of 0.3) and by others (no noise)."""
    rng = np.random.default_rng(0)
    labels, model, baselines = {}, {}, {}
    predictions: dict[str, dict[str, np.ndarray]] = {}
    for part in PARTS:
        truth = rng.normal(-1.0, 1.0, rows)
        labels[part] = (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.float32)
        model[part] = 1 / (1 + np.exp(-(truth + shift + rng.normal(0, noise, rows))))
        predictions.setdefault("constant", {})[part] = np.full(rows, labels[part].mean())
        if "logistic_regression" not in others:
            noisy = truth + rng.normal(0, 0.3, rows)
            predictions.setdefault("logistic_regression", {})[part] = 1 / (1 + np.exp(-noisy))
        for name in others:
            predictions.setdefault(name, {})[part] = 1 / (1 + np.exp(-truth))
    for name, p in predictions.items():
        baselines[name] = BaselineResult(p, {part: evaluate(labels[part], p[part]) for part in PARTS})
    return judge(labels, model, baselines)


def test_a_good_model_is_compared_with_all_on_both_parts() -> None:
    verdict = judged(0.1)
    assert verdict.poor == ()
    assert {part: set(of_part) for part, of_part in verdict.differences.items()} == {
        part: {"constant", "logistic_regression", "lightgbm"} for part in PARTS
    }
    against_constant = verdict.differences["test"]["constant"]
    assert against_constant.auc.low > 0 > against_constant.log_loss.high


def test_worse_than_logistic_regression_is_poor_and_worse_than_the_constant_too() -> None:
    (reason,) = judged(0.8).poor
    assert reason.startswith("worse than logistic regression: on 2,000 validation rows its log loss is 0.")
    first, second = judged(4.0).poor
    assert first.startswith("worse than the constant: ")
    assert second.startswith("worse than logistic regression: ")


def test_what_chance_explains_is_not_poor() -> None:
    assert judged(0.5, rows=60).poor == ()


def test_worse_than_boosted_trees_is_not_poor() -> None:
    assert judged(0.3).poor == ()
    assert judged(0.3).differences["validation"]["lightgbm"].log_loss.low > 0


def test_a_difference_that_matters_to_nobody_is_not_poor_however_many_the_rows() -> None:
    verdict = judged(0.0, rows=400_000, shift=0.04, others=("logistic_regression",))
    difference = verdict.differences["validation"]["logistic_regression"].log_loss
    assert difference.low > 0
    assert difference.value < 0.001
    assert verdict.poor == ()


@pytest.mark.parametrize("clicks", [0, 1])
def test_parts_with_few_clicks_and_no_baselines_have_a_verdict(clicks: int) -> None:
    labels = {part: (np.arange(5) < clicks).astype(np.float32) for part in PARTS}
    p = {part: np.full(5, 0.2) for part in PARTS}
    assert judge(labels, p, {}) == Verdict((), {part: {} for part in PARTS})
    metrics = {part: evaluate(labels[part], p[part]) for part in PARTS}
    assert judge(labels, p, {"constant": BaselineResult(p, metrics)}).poor == ()


def test_a_baseline_without_a_validation_part_decides_nothing() -> None:
    labels = {part: (np.arange(100) % 3 == 0).astype(np.float32) for part in PARTS}
    p = {part: np.full(100, 0.9) for part in PARTS}
    live = BaselineResult({"test": np.full(100, 0.33)}, {"test": evaluate(labels["test"], np.full(100, 0.33))})
    verdict = judge(labels, p, {"version 3": live, "constant": live})
    assert verdict.poor == ()
    assert set(verdict.differences["test"]) == {"version 3", "constant"}
