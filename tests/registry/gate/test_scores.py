"""A version that was measured to be better on the same rows may score unlike the live one."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from app.registry.gate.gate_task import GateThresholds
from app.registry.gate.scores import check_shift
from app.training.evaluation.comparison import compare, is_better
from app.training.evaluation.intervals import paired_difference

GENERATOR = np.random.default_rng(3)


@pytest.mark.parametrize(("better", "passed"), [(False, False), (True, True)])
@pytest.mark.parametrize("change", ["order", "level"])
def test_better_is_no_fault(better: bool, passed: bool, change: str) -> None:
    live_UN = GENERATOR.random((8, 64)).astype(np.float32) / 4
    new_UN = np.sort(live_UN.ravel())[::-1].reshape(8, 64).copy() if change == "order" else 3 * live_UN
    thresholds = GateThresholds(1.3, 0.5, 5.0, 0.3)
    check = check_shift(new_UN, live_UN, 7, thresholds, better)
    assert check.passed is passed
    assert ("measured to be better" in check.detail) is better


def test_better_is_what_the_same_rows_show_beyond_chance() -> None:
    labels_N = (GENERATOR.random(2000) < 0.3).astype(np.float32)
    good_N = np.clip(0.3 + 0.4 * (labels_N - 0.3) + GENERATOR.normal(0, 0.1, 2000), 0.01, 0.99).astype(np.float64)
    constant_N = np.full(2000, 0.3)
    for new_N, live_N, better in ((good_N, constant_N, True), (constant_N, good_N, False), (good_N, good_N, False)):
        assert is_better(compare("log_loss", labels_N, new_N, live_N)) is better
    few = slice(0, 12)
    difference = asdict(paired_difference(labels_N[few], constant_N[few] + 1e-3, constant_N[few]))
    assert not is_better({"difference": difference})
    assert not is_better({})


@pytest.mark.parametrize(("auc_high", "better"), [(0.003, True), (-0.001, False)])
def test_better_is_not_worse_by_the_other_metric_beyond_chance(auc_high: float, better: bool) -> None:
    loss = {"value": -0.0528, "low": -0.071, "high": -0.035}
    auc = {"value": -0.0025, "low": -0.008, "high": auc_high}
    assert is_better({"difference": {"auc": auc, "log_loss": loss}}) is better
