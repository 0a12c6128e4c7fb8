"""A row that counts n times is n rows: of metrics, intervals, differences and calibration alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.training.evaluation.calibration import METHODS, Calibration
from app.training.evaluation.calibration_methods import fit_method
from app.training.evaluation.intervals import auc_interval, log_loss_interval, paired_difference
from app.training.evaluation.metrics import evaluate, group_aucs
from app.training.evaluation.platt import fit_offset, fit_platt
from app.training.evaluation.reliability import reliability
from app.training.evaluation.weighting import Weighting, equal_weights


class Counted(NamedTuple):
    """Rows that stand for several equal ones each."""

    labels_N: np.ndarray
    scores_N: np.ndarray
    groups_N: np.ndarray
    counts_N: np.ndarray

    def repeated(self) -> Counted:
        """Return each row as often as it counts."""
        return Counted(*(np.repeat(part, self.counts_N) for part in self))

    @property
    def weighting(self) -> Weighting:
        return Weighting(self.counts_N.astype(float), self.counts_N.astype(float))


@st.composite
def counted(draw: st.DrawFn) -> Counted:
    count = draw(st.integers(3, 40))
    labels = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), np.float32)
    assume(0 < labels.sum() < count)
    scores = draw(st.lists(st.integers(1, 99), min_size=count, max_size=count))
    groups = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    counts = draw(st.lists(st.integers(1, 5), min_size=count, max_size=count))
    return Counted(labels, np.array(scores) / 100, np.array(groups), np.array(counts))


def approx(value: object) -> object:
    return pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True)


@given(counted())
def test_metrics_are_those_of_the_rows_repeated(rows: Counted) -> None:
    repeated = rows.repeated()
    weighted = evaluate(rows.labels_N, rows.scores_N, rows.groups_N, rows.weighting)
    plain = evaluate(repeated.labels_N, repeated.scores_N, repeated.groups_N)
    del weighted["ece"], plain["ece"]  # between whose bins the unweighted quantiles lie
    assert weighted == approx(plain)
    for one, other in zip(
        group_aucs(rows.groups_N, rows.labels_N, rows.scores_N, rows.counts_N),
        group_aucs(repeated.groups_N, repeated.labels_N, repeated.scores_N),
        strict=True,
    ):
        assert one == approx(other)


@given(counted(), st.integers(2, 6))
def test_bins_are_those_of_the_rows_repeated(rows: Counted, bins: int) -> None:
    repeated = rows.repeated()
    weighted = reliability(rows.labels_N, rows.scores_N, bins, rows.counts_N)
    plain = reliability(repeated.labels_N, repeated.scores_N, bins, np.ones(len(repeated.labels_N)))
    assert weighted.weights_G == approx(plain.rows_G)
    assert weighted.predicted_G == approx(plain.predicted_G)
    assert weighted.observed_G == approx(plain.observed_G)
    assert weighted.ece == approx(plain.ece)


@given(counted())
def test_intervals_are_those_of_the_rows_repeated(rows: Counted) -> None:
    repeated = rows.repeated()
    for interval in (auc_interval, log_loss_interval):
        weighted = interval(rows.labels_N, rows.scores_N, rows.weighting)
        assert vars(weighted) == approx(vars(interval(repeated.labels_N, repeated.scores_N)))
    others_N, repeated_others_N = rows.scores_N[::-1], np.repeat(rows.scores_N[::-1], rows.counts_N)
    difference = paired_difference(rows.labels_N, rows.scores_N, others_N, rows.weighting)
    expected = paired_difference(repeated.labels_N, repeated.scores_N, repeated_others_N)
    assert vars(difference.auc) == approx(vars(expected.auc))
    assert vars(difference.log_loss) == approx(vars(expected.log_loss))


@given(counted())
def test_calibration_is_that_of_the_rows_repeated(rows: Counted) -> None:
    repeated = rows.repeated()
    logits_N, repeated_logits_N = (np.log(part.scores_N / (1 - part.scores_N)) for part in (rows, repeated))
    fits: list[Callable[..., object]] = [fit_platt, lambda z, y, w=None: fit_offset(z, y, weights_N=w)]
    for fit in fits:
        weighted = fit(logits_N, rows.labels_N, rows.counts_N)
        assert weighted == pytest.approx(fit(repeated_logits_N, repeated.labels_N), rel=1e-4, abs=1e-4)
    for method in METHODS:
        weighted = fit_method(method, logits_N, rows.labels_N, rows.weighting)
        plain = fit_method(method, repeated_logits_N, repeated.labels_N, equal_weights(len(repeated.labels_N)))
        # The least slope is of the rows as they are: a deviation of logits has no clicks in it.
        assert method == "platt" or weighted == pytest.approx(plain, abs=1e-6)


def test_a_calibration_is_carried_over_by_the_weighted_level() -> None:
    rng = np.random.default_rng(0)
    logits_N, labels_N, counts_N = rng.normal(size=300), (rng.random(300) < 0.3).astype(float), rng.integers(1, 4, 300)
    calibration = Calibration(0.5, -0.3, "platt")
    weighting = Weighting(counts_N.astype(float), counts_N.astype(float))
    weighted = calibration.carried_over(logits_N, 2 * logits_N, labels_N, weighting, weighting)
    repeated_N, repeated_labels_N = np.repeat(logits_N, counts_N), np.repeat(labels_N, counts_N)
    assert weighted.offset == pytest.approx(
        calibration.carried_over(repeated_N, 2 * repeated_N, repeated_labels_N).offset, abs=1e-9
    )


def test_the_error_of_a_mean_covers_it_as_often_as_it_says() -> None:
    """Weights of single rows, of a long tail: the usual error of equal rows would be far too small."""
    rng = np.random.default_rng(1)
    missed = missed_as_equal = 0
    for _ in range(400):
        weights_N = rng.lognormal(0, 1.2, 500)
        values_N = rng.normal(0, 1, 500)
        mean, error = Weighting(weights_N, np.square(weights_N)).mean_and_error(values_N)
        missed += abs(mean) > 1.96 * error
        missed_as_equal += abs(mean) > 1.96 * values_N.std() / math.sqrt(500)
    assert 0.02 < missed / 400 < 0.09
    assert missed_as_equal / 400 > 0.2


def test_weights_of_one_are_none() -> None:
    rng = np.random.default_rng(2)
    labels_N, p_N, groups_N = (rng.random(200) < 0.4).astype(np.float32), rng.random(200), rng.integers(0, 9, 200)
    weighted = evaluate(labels_N, p_N, groups_N, equal_weights(200))
    plain = evaluate(labels_N, p_N, groups_N)
    assert weighted.pop("ece") == pytest.approx(plain.pop("ece"), abs=0.02)
    assert weighted == approx(plain)


def test_the_scale_of_weights_says_nothing() -> None:
    rng = np.random.default_rng(3)
    labels_N, p_N, weights_N = (rng.random(200) < 0.4).astype(np.float32), rng.random(200), rng.gamma(2.0, 1.0, 200)
    one, other = (
        evaluate(labels_N, p_N, None, Weighting(scale * weights_N, np.square(scale * weights_N)))
        for scale in (1.0, 250.0)
    )
    assert one == approx(other)
