"""The fitted numbers are those that labels were drawn with, and of all numbers those of least log loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from app.training.evaluation.platt import fit_offset, fit_platt, log_losses, platt_targets, sigmoid


def draw_labels(slope: float, offset: float, rows: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits, and labels that follow sigmoid(slope * logit + offset)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, rows)
    return logits.astype(np.float32), (rng.random(rows) < sigmoid(slope * logits + offset)).astype(np.float32)


@pytest.mark.parametrize(("slope", "offset"), [(0.6, -0.4), (1.0, 0.0), (1.7, 1.1)])
def test_it_finds_what_the_labels_follow(slope: float, offset: float) -> None:
    logits, labels = draw_labels(slope, offset)
    assert fit_platt(logits, labels) == pytest.approx((slope, offset), abs=0.05)
    assert fit_offset(logits, labels, slope) == pytest.approx(offset, abs=0.05)


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
    arrays = np.array(logits, np.float32), np.array(labels, np.float32)
    assert np.isfinite(fit_platt(*arrays)).all()
    assert np.isfinite(fit_offset(*arrays))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-30, 30, width=32), st.booleans()), min_size=1, max_size=40),
    st.floats(0.01, 10),
)
def test_no_offset_near_the_fitted_one_has_a_lower_loss(rows: list[tuple[float, bool]], slope: float) -> None:
    logits = np.array([logit for logit, _ in rows], np.float32)
    labels = np.array([label for _, label in rows], np.float32)
    offset, targets = fit_offset(logits, labels, slope), platt_targets(labels)
    losses = [
        log_losses(slope * logits.astype(np.float64) + b, targets).mean() for b in offset + np.linspace(-2, 2, 41)
    ]
    assert losses[20] <= min(losses) + 1e-9
    assert sigmoid(slope * logits.astype(np.float64) + offset).sum() == pytest.approx(targets.sum(), abs=1e-6)
