"""Platt scaling finds the numbers that labels were drawn with; `auto` scales only where it helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from app.training.architectures import ModelConfig
from app.training.evaluation.calibration import Calibration, cross_fitted_gain, fit_calibration, fit_platt, sigmoid
from app.training.preprocessing.encode import encode
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.preprocessing.test_preprocessing_fit import some_data


def draw_labels(slope: float, offset: float, rows: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits, and labels that follow sigmoid(slope * logit + offset)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, rows)
    return logits.astype(np.float32), (rng.random(rows) < sigmoid(slope * logits + offset)).astype(np.float32)


@pytest.mark.parametrize(("slope", "offset"), [(0.6, -0.4), (1.0, 0.0), (1.7, 1.1)])
def test_it_finds_what_the_labels_follow(slope: float, offset: float) -> None:
    assert fit_platt(*draw_labels(slope, offset)) == pytest.approx((slope, offset), abs=0.05)


def test_it_is_the_maximum_of_the_likelihood() -> None:
    logits, labels = draw_labels(0.7, -0.3)
    peer = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(logits[:, None].astype(float), labels)
    result = fit_platt(logits, labels)
    # Platt's targets are off 0 and 1 by 1 / rows, and so is the answer.
    assert result == pytest.approx((peer.coef_[0, 0], peer.intercept_[0]), abs=2e-3)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [([-1.0, -0.5, 0.5, 1.0], [0, 0, 1, 1]), ([0.3] * 6, [0, 1, 0, 0, 1, 0]), ([40.0, -40.0, 39.0], [1, 0, 1])],
)
def test_separable_and_constant_logits_have_a_finite_answer(logits: list[float], labels: list[int]) -> None:
    assert np.isfinite(fit_platt(np.array(logits, np.float32), np.array(labels, np.float32))).all()


def test_auto_scales_where_it_helps_and_only_there() -> None:
    off, right = draw_labels(0.5, 0.5, 4000), draw_labels(1.0, 0.0, 4000)
    assert cross_fitted_gain(*off) > 5
    assert fit_calibration("auto", *off).method == "platt"
    assert (fit_calibration("auto", *right).slope, fit_calibration("auto", *right).method) == (1.0, "none")
    assert fit_calibration("platt", *right).method == "platt"
    assert (fit_calibration("none", *off).slope, fit_calibration("none", *off).offset) == (1.0, 0.0)


def test_a_model_that_is_worse_than_chance_keeps_its_order() -> None:
    logits, labels = draw_labels(-1.0, 0.0, 4000)
    assert fit_platt(logits, labels)[0] < 0
    assert fit_calibration("auto", logits, labels).slope == 1.0
    assert fit_calibration("platt", logits, labels).slope == 1.0


def test_a_model_that_has_hardly_learned_is_not_blown_up() -> None:
    logits, labels = draw_labels(1.0, 0.0, 4000)
    assert fit_platt(logits / 50, labels)[0] > 40
    assert fit_calibration("auto", logits / 50, labels).slope == 1.0
    assert fit_calibration("auto", logits / 5, labels).slope == pytest.approx(5, abs=0.5)


def test_too_few_rows_to_say_leave_it() -> None:
    assert fit_calibration("auto", np.zeros(3, np.float32), np.array([0, 1, 0], np.float32)) == Calibration()


def test_the_model_scores_as_the_calibration_says() -> None:
    data = some_data()
    model = ModelConfig("lr").build(PreprocessingFit().fit(data.schema, encode(data)))
    calibration = Calibration(0.8, -0.2, "platt")
    calibration.apply(model)
    logits = torch.linspace(-30, 30, 101)
    np.testing.assert_allclose(model.probability(logits), calibration.probabilities(logits.numpy()), rtol=2e-5)
