"""Errors of AUC equal DeLong's by brute force, and intervals cover the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from app.training.evaluation.intervals import (
    auc_interval,
    log_loss_interval,
    paired_difference,
    row_log_losses,
)

Rows = list[tuple[bool, int, int]]
ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=30).filter(
    lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2
)


def kernel(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return psi [P, N] of each pair of a click and another row: 1, 1/2 or 0 (DeLong et al. 1988, eq. 1)."""
    difference = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return (difference > 0) + 0.5 * (difference == 0)


def brute_force_error(psi: np.ndarray) -> float:
    clicks, others = psi.shape
    s10 = ((psi.mean(1) - psi.mean()) ** 2).sum() / (clicks - 1)
    s01 = ((psi.mean(0) - psi.mean()) ** 2).sum() / (others - 1)
    return math.sqrt(s10 / clicks + s01 / others)


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_auc_and_its_error_are_those_of_all_pairs(rows: Rows) -> None:
    labels, scores = np.array([row[0] for row in rows], np.float32), np.array([row[1] for row in rows]) / 7
    interval = auc_interval(labels, scores)
    assert interval.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert interval.error == pytest.approx(brute_force_error(kernel(labels, scores)), abs=1e-12)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_a_difference_and_its_error_are_those_of_all_pairs(rows: Rows) -> None:
    labels = np.array([row[0] for row in rows], np.float32)
    first, second = ((np.array([row[column] for row in rows]) + 0.5) / 7 for column in (1, 2))
    difference = paired_difference(labels, first, second)
    psi = kernel(labels, first) - kernel(labels, second)
    assert difference.auc.value == pytest.approx(psi.mean(), abs=1e-12)
    assert difference.auc.error == pytest.approx(brute_force_error(psi), abs=1e-12)
    losses = row_log_losses(labels, first) - row_log_losses(labels, second)
    assert difference.log_loss.value == pytest.approx(losses.mean(), abs=1e-12)
    assert difference.log_loss.error == pytest.approx(losses.std(ddof=1) / math.sqrt(len(rows)), abs=1e-12)
    back = paired_difference(labels, second, first)
    assert (back.auc.value, back.log_loss.low) == pytest.approx((-difference.auc.value, -difference.log_loss.high))


def test_the_log_loss_is_that_of_scikit_learn_and_of_certain_mistakes() -> None:
    labels, p = np.array([1, 0, 1, 0], np.float32), np.array([0.0, 1.0, 0.5, 0.1])
    assert row_log_losses(labels, p).mean() == pytest.approx(log_loss(labels, p))
    assert log_loss_interval(labels, p).low == 0, "a log loss is not negative"


def draw(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw labels, and probabilities of a better and a worse model whose logits share most of their noise."""
    truth = rng.normal(-1.5, 1.0, rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    shared = truth + rng.normal(0, 0.7, rows)
    better, worse = (shared + rng.normal(0, scale, rows) for scale in (0.1, 0.5))
    return labels, 1 / (1 + np.exp(-better)), 1 / (1 + np.exp(-worse))


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Of 400 draws 95 % is 380; the standard deviation of that count is 4.4."""
    rng = np.random.default_rng(0)
    labels, better, worse = draw(rng, 400_000)
    auc, loss = (float(roc_auc_score(labels, better)), float(log_loss(labels, better)))
    difference = paired_difference(labels, better, worse)
    covered = np.zeros(4, int)
    for _ in range(400):
        labels, better, worse = draw(rng, 400)
        paired = paired_difference(labels, better, worse)
        intervals = auc_interval(labels, better), log_loss_interval(labels, better), paired.auc, paired.log_loss
        truths = auc, loss, difference.auc.value, difference.log_loss.value
        covered += [i.low <= truth <= i.high for i, truth in zip(intervals, truths, strict=True)]
    assert (covered >= 360).all(), covered
    assert (covered <= 394).all(), covered


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    labels, better, worse = draw(np.random.default_rng(1), 2000)
    paired = paired_difference(labels, better, worse)
    assert paired.auc.error < 0.6 * math.hypot(auc_interval(labels, better).error, auc_interval(labels, worse).error)
    assert paired.log_loss.high < 0 < paired.auc.low


@pytest.mark.parametrize("clicks", [0, 1, 5])
def test_too_few_rows_of_a_label_have_no_bounds(clicks: int) -> None:
    labels = (np.arange(5) < clicks).astype(np.float32)
    p = np.array([0.3, 0.2, 0.4, 0.6, 0.1])
    interval = auc_interval(labels, p)
    assert math.isnan(interval.value) == (clicks in (0, 5))
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert math.isnan(paired_difference(labels, p, 1 - p).auc.low)
    assert math.isfinite(log_loss_interval(labels, p).high)
    assert math.isnan(log_loss_interval(labels[:1], p[:1]).high)


def test_a_constant_and_a_perfect_order_have_their_value_as_bounds() -> None:
    labels = np.array([0, 0, 1, 1], np.float32)
    assert auc_interval(labels, np.full(4, 0.3)).high == 0.5
    assert auc_interval(labels, np.array([0.1, 0.2, 0.3, 0.4])).low == 1.0
