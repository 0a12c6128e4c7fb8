"""`auto` does what the rows support, the simplest first: nothing, an offset, or a slope and an offset."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.metrics import log_loss, roc_auc_score

from app.training.architectures import ModelConfig
from app.training.evaluation.calibration import Calibration, Method, fit_calibration
from app.training.evaluation.calibration_methods import FLAT, METHODS, cross_fitted_losses, least_slope
from app.training.evaluation.platt import fit_level, fit_platt, sigmoid
from app.training.evaluation.reliability import reliability
from app.training.preprocessing.encode import encode
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.evaluation.test_platt import draw_labels
from tests.training.preprocessing.test_preprocessing_fit import some_data


def rare(slope: float, positives: int, rows: int = 10_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits whose sum of predictions is right, and about so many clicks, whose log odds rise by `slope`."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 2.0, rows)
    shifts = (brentq(lambda b, a=a: sigmoid(a * noise + b).mean() - positives / rows, -40, 0) for a in (1.0, slope))
    logits, truth = noise + next(shifts), slope * noise + next(shifts)
    return logits.astype(np.float32), (rng.random(rows) < sigmoid(truth)).astype(np.float32)


def test_auto_does_what_the_labels_were_drawn_with() -> None:
    both, offset, right = draw_labels(0.5, 0.5, 4000), draw_labels(1.0, 0.8, 4000), draw_labels(1.0, 0.0, 4000)
    assert fit_calibration("auto", *both).method == "platt"
    assert fit_calibration("auto", *both).gain > 5
    shifted = fit_calibration("auto", *offset)
    assert (shifted.method, shifted.slope, shifted.offset) == ("offset", 1.0, pytest.approx(0.8, abs=0.1))
    left = fit_calibration("auto", *right)
    assert (left.method, left.slope, left.offset) == ("none", 1.0, 0.0)


def test_what_was_asked_for_is_done() -> None:
    right, off = draw_labels(1.0, 0.0, 4000), draw_labels(0.5, 0.5, 4000)
    methods: list[Method] = ["none", "offset", "platt"]
    for method in methods:
        calibration = fit_calibration(method, *right)
        assert calibration.method == method
        assert calibration.reason == f"{method} was asked for"
    assert (fit_calibration("none", *off).slope, fit_calibration("none", *off).offset) == (1.0, 0.0)
    assert fit_calibration("none", *off).gain > 5, "what it would have gained"


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_of_rows_that_were_not_fitted_on(seed: int) -> None:
    logits, labels = draw_labels(0.8, 0.2, 60, seed)
    losses = cross_fitted_losses(logits, labels, seed)
    assert list(losses) == list(METHODS)
    assert losses["none"].mean() == pytest.approx(log_loss(labels, sigmoid(logits.astype(float)), labels=[0, 1]))
    fitted = fit_calibration("platt", logits, labels).probabilities(logits)
    assert losses["platt"].mean() > log_loss(labels, fitted, labels=[0, 1]), "each row is held out"


def test_a_model_that_is_worse_than_chance_keeps_its_order_and_is_no_worse_than_the_constant() -> None:
    logits, labels = draw_labels(-1.0, 0.0, 4000)
    assert fit_platt(logits, labels)[0] < 0
    constant = log_loss(labels, np.full(4000, labels.mean()))
    methods: list[Method] = ["auto", "platt"]
    for method in methods:
        calibration = fit_calibration(method, logits, labels)
        assert (calibration.method, calibration.slope) == ("platt", least_slope(logits))
        assert "all but a constant" in calibration.reason
        loss = log_loss(labels, calibration.probabilities(logits))
        assert loss < constant + 0.005
        level = calibration.probabilities(logits).mean()
        assert loss < log_loss(labels, np.full(4000, level)) + FLAT / 2
        assert (np.argsort(calibration.probabilities(logits), kind="stable") == np.argsort(logits, kind="stable")).all()


@pytest.mark.parametrize("positives", [20, 60, 200])
def test_noise_is_damped_with_few_clicks(positives: int) -> None:
    for seed in range(4):
        logits, labels = rare(0.0, positives, seed=seed)
        calibration = fit_calibration("auto", logits, labels)
        assert calibration.method == "platt", calibration.reason
        assert least_slope(logits) <= calibration.slope < 0.4
        new_logits, new_labels = rare(0.0, positives, seed=seed + 100)
        constant = log_loss(new_labels, np.full(len(new_labels), new_labels.mean()))
        raw = log_loss(new_labels, sigmoid(new_logits.astype(float)))
        assert log_loss(new_labels, calibration.probabilities(new_logits)) - constant < 0.2 * (raw - constant)


def test_a_model_that_is_right_keeps_its_slope_with_few_clicks() -> None:
    kept = [fit_calibration("auto", *rare(1.0, 60, seed=seed)) for seed in range(10)]
    assert sum(calibration.method == "none" for calibration in kept) >= 4
    assert all(0.5 < calibration.slope < 2 for calibration in kept)


def test_a_model_that_has_hardly_learned_is_shifted_and_not_blown_up() -> None:
    """All logits are within 0.1 of each other and too low: Platt's slope would be large."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, 4000)
    labels = (rng.random(4000) < sigmoid(truth)).astype(np.float32)
    logits = (truth / 73 - 0.9).astype(np.float32)
    assert fit_platt(logits, labels)[0] > 40
    for method in ("auto", "platt", "offset"):
        calibration = fit_calibration(method, logits, labels)  # type: ignore[arg-type]
        assert (calibration.method, calibration.slope) == ("offset", 1.0)
        assert "the slope would be" in calibration.reason
        assert calibration.probabilities(logits).mean() == pytest.approx(labels.mean(), abs=1e-3)
        assert reliability(labels, calibration.probabilities(logits)).rows_G.sum() == 4000
    assert fit_calibration("auto", truth.astype(np.float32) / 5, labels).slope == pytest.approx(5, abs=0.5)


def test_three_clicks_damp_noise_more_often_than_not_and_leave_what_is_right() -> None:
    noise = [fit_calibration("auto", *rare(0.0, 4, 2000, seed)) for seed in range(30)]
    right = [fit_calibration("auto", *rare(1.0, 4, 2000, seed)) for seed in range(30)]
    assert sum(calibration.slope < 0.5 for calibration in noise) >= 15
    assert sum(calibration.method == "none" for calibration in right) >= 20


@pytest.mark.parametrize("clicks", [0, 1, 2, 998, 1000])
def test_too_few_rows_to_say_leave_it(clicks: int) -> None:
    labels = (np.arange(1000) < clicks).astype(np.float32)
    calibration = fit_calibration("auto", np.linspace(-3, 3, 1000, dtype=np.float32), labels)
    assert (calibration.slope, calibration.offset, calibration.method) == (1.0, 0.0, "none")
    assert "fewer than 3 rows" in calibration.reason


def test_the_model_scores_as_the_calibration_says() -> None:
    data = some_data()
    model = ModelConfig("lr").build(PreprocessingFit().fit(data.schema, encode(data)))
    calibration = Calibration(0.8, -0.2, "platt")
    calibration.apply(model)
    logits = torch.linspace(-30, 30, 101)
    np.testing.assert_allclose(model.probability(logits), calibration.probabilities(logits.numpy()), rtol=2e-5)


@pytest.mark.parametrize("slope", [0.01, 0.5, 2.0])
def test_a_calibration_that_is_carried_over_keeps_its_slope_and_its_change_of_the_level(slope: float) -> None:
    generator = np.random.default_rng(0)
    logits, other = generator.normal(-3, 1, 4000), generator.normal(-2.5, 1.5, 9000)
    fitted = Calibration(slope, fit_level(logits, float(sigmoid(logits).mean()), slope), "platt")
    labels = (np.arange(9000) < 1000).astype(np.float32)
    carried_over = fitted.carried_over(logits, other, labels)
    assert (carried_over.slope, carried_over.method) == (slope, "platt")
    assert carried_over.probabilities(other).mean() == pytest.approx(1 / 9, abs=1e-9)
    raised = Calibration(slope, fitted.offset + 0.3, "platt").carried_over(logits, other, labels)
    assert raised.probabilities(other).mean() > carried_over.probabilities(other).mean()
    assert Calibration(1.0, 0.2, "offset").carried_over(logits, other, labels) == Calibration(1.0, 0.2, "offset")


def test_a_few_clicks_too_many_do_not_move_the_level() -> None:
    """Of 1,000 rows with a click rate of 5 %, 58 clicks are one standard error above the 50 expected."""
    logits = np.full(1000, np.log(0.05 / 0.95)) + np.random.default_rng(1).normal(0, 0.3, 1000)
    for clicks, moves in ((58, False), (90, True)):
        labels = (np.arange(1000) < clicks).astype(np.float32)
        calibration = fit_calibration("platt", logits.astype(np.float32), labels)
        level = calibration.probabilities(logits).mean()
        assert (level == pytest.approx(sigmoid(logits).mean(), abs=1e-3)) == (not moves)


@pytest.mark.parametrize("seed", range(3))
def test_logits_that_are_worth_no_more_than_a_constant_leave_a_constant(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = (generator.random(8000) < 0.006).astype(np.float32)
    noise = np.log(0.006 / 0.994) + generator.normal(0, 0.05, 8000).astype(np.float32)
    calibration = fit_calibration("auto", noise, labels)
    assert calibration.slope == least_slope(noise)
    assert "all but a constant is left" in calibration.reason
    assert calibration.probabilities(noise).mean() == pytest.approx(sigmoid(noise.astype(np.float64)).mean(), rel=1e-6)


def test_a_constant_is_left_at_the_level_of_the_clicks_where_the_logits_are_far_off() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(8000) < 0.02).astype(np.float32)
    noise = np.log(0.006 / 0.994) + generator.normal(0, 0.05, 8000).astype(np.float32)
    calibration = fit_calibration("auto", noise, labels)
    assert calibration.slope == least_slope(noise)
    assert calibration.probabilities(noise).mean() == pytest.approx(labels.mean(), rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_logits_far_too_large_are_scaled_and_not_given_up(seed: int) -> None:
    """Untouched they are worse than a constant, which says nothing of what a slope makes of them."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.0, 400)
    labels = (generator.random(400) < sigmoid(logits)).astype(np.float32)
    calibration = fit_calibration("auto", (8 * logits).astype(np.float32), labels)
    assert calibration.method == "platt"
    assert 0.04 < calibration.slope < 0.3
    assert (
        log_loss(labels, calibration.probabilities(8 * logits)) < log_loss(labels, np.full(400, labels.mean())) - 0.03
    )


@given(
    seed=st.integers(0, 1000),
    scale=st.floats(1e-3, 30),
    share=st.sampled_from([0.005, 0.05, 0.5]),
    tails=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_logits_without_a_slope_cost_nothing_and_keep_their_order(
    seed: int, scale: float, share: float, tails: bool
) -> None:
    """Clicks of other rows have nothing to do with the logits: their log loss is the constant's, their AUC stays."""
    generator = np.random.default_rng(seed)
    drawn = generator.standard_t(3, 20_000) if tails else generator.normal(0, 1, 20_000)
    logits = (np.log(share / (1 - share)) + scale * drawn).astype(np.float32)
    slope = least_slope(logits)
    calibration = Calibration(slope, fit_level(logits, share, slope), "platt")
    probabilities = calibration.probabilities(logits)
    labels = (generator.random(20_000) < share).astype(np.float32)
    constant = log_loss(labels, np.full(20_000, share))
    assert log_loss(labels, probabilities) <= constant + 5 * FLAT * np.sqrt(share * (1 - share) / 20_000) + FLAT**2
    falling = (np.argsort(np.argsort(logits)) < share * 20_000).astype(np.float32)
    worst = log_loss(falling, probabilities) - log_loss(falling, np.full(20_000, share))
    assert worst <= FLAT * np.sqrt(share * (1 - share)) + FLAT**2, "clicks are those of the lowest logits"
    served = torch.sigmoid(torch.from_numpy(logits) * np.float32(slope) + np.float32(calibration.offset)).numpy()
    assert roc_auc_score(labels, served) == pytest.approx(roc_auc_score(labels, logits), abs=1e-3)


def test_the_share_of_negatives_is_added_to_what_was_fitted_and_stays_when_it_is_carried_over() -> None:
    """Of draws of which a tenth of the negatives is kept, the probabilities are those of all."""
    logits, labels = draw_labels(0.6, -2.5, 400_000)
    kept = (labels > 0.5) | (np.random.default_rng(1).random(len(labels)) < 0.1)
    fitted = fit_calibration("platt", logits[kept], labels[kept])
    told = replace(fitted, negatives_offset=math.log(0.1))
    assert told.probabilities(logits).mean() == pytest.approx(labels.mean(), rel=0.02)
    assert reliability(labels, told.probabilities(logits)).ece < 0.003
    assert reliability(labels, fitted.probabilities(logits)).ece > 0.2, "it would say so of the rows that were kept"
    assert "-2.3, as 0.1 of the negatives were kept" in told.in_words
    other = 2 * logits[kept] + 1
    carried = told.carried_over(logits[kept], other, labels[kept])
    assert carried.negatives_offset == told.negatives_offset
    assert carried.offset == pytest.approx(fitted.carried_over(logits[kept], other, labels[kept]).offset)
    data = some_data(50)
    model = ModelConfig("lr").build(PreprocessingFit().fit(data.schema, encode(data)))
    told.apply(model)
    assert model.calibration_2.tolist() == pytest.approx([told.slope, told.offset + math.log(0.1)])
