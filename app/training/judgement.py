"""Fit the baselines on a job's rows, and judge the trained model beside them."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from app.training.data.split import HELD_OUT, PARTS
from app.training.evaluation.baselines import BASELINES, BaselineResult, fit_baselines
from app.training.evaluation.linear_baseline import LinearFit
from app.training.evaluation.verdict import Verdict, judge
from app.training.job_results import PreparedData, TrainedModel

log = structlog.get_logger(__name__)


def fit_baselines_on(
    prepared: PreparedData,
    seed: int,
    notify: Callable[[str], None] = lambda message: None,
    names: tuple[str, ...] = BASELINES,
    linear: LinearFit | None = None,
) -> dict[str, BaselineResult]:
    """Fit and measure the baselines; return none if they fail, as the trained model must not be lost.

    Args:
        linear: logistic regression, where it was fitted already.
    """
    notify("Fitting the baselines on the same rows")
    rows = {part: (prepared.encoded[part], prepared.rows[part]) for part in PARTS}
    groups = {part: prepared.groups(part) for part in HELD_OUT}
    try:
        return fit_baselines(prepared.preprocessing, rows, seed, groups, names=names, linear=linear)
    except Exception as error:
        log.exception("baselines_failed")
        notify(f"The baselines could not be fitted, the model is: {type(error).__name__}: {error}")
        return {}


def judge_trained(prepared: PreparedData, trained: TrainedModel, baselines: dict[str, BaselineResult]) -> Verdict:
    """Compare the trained model with the baselines on the same rows."""
    labels = {part: prepared.encoded[part].labels_N for part in HELD_OUT}
    weighting = {part: prepared.encoded[part].weighting for part in HELD_OUT}
    return judge(labels, {part: trained.probabilities(part) for part in HELD_OUT}, baselines, weighting)
