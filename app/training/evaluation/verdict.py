"""Judge a trained model by the baselines on the same rows: whether it is poor, and how far it is from each of them.

A model is poor if on the validation part its log loss is above that of the constant, or of logistic regression, by more
than chance explains: the 95 % interval of the paired difference is above 0, and the difference is not negligible. The
test part decides nothing here either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.training.evaluation.baselines import CONSTANT, LOGISTIC_REGRESSION, BaselineResult
from app.training.evaluation.intervals import PairedDifference, paired_difference
from app.training.evaluation.reliability import Floats
from app.training.evaluation.weighting import Weighting

JUDGES = (CONSTANT, LOGISTIC_REGRESSION)
"""A model that is worse than one of these is poor."""
DECIDING_PART = "validation"
NEGLIGIBLE = 0.002
"""On many rows even a difference that matters to nobody is beyond its interval: it must be this share of the loss."""


@dataclass(frozen=True)
class Verdict:
    """Holds the comparisons of a model with the baselines, and why it is poor, if it is."""

    poor: tuple[str, ...] = ()
    """Says in a sentence each why the model is poor; empty if it is not."""
    differences: dict[str, dict[str, PairedDifference]] = field(default_factory=dict)
    """Holds the model's metrics minus the baseline's, by part and then by the baseline's name."""


def judge(
    labels: Mapping[str, Floats],
    probabilities: Mapping[str, Floats],
    baselines: Mapping[str, BaselineResult],
    weighting: Mapping[str, Weighting | None] | None = None,
) -> Verdict:
    """Compare the model's probabilities [N] with those of the baselines, part by part; all are keyed by part.

    Args:
        weighting: how much each row counts; None counts all the same.
    """
    weighting = weighting or {}
    differences = {
        part: {
            name: paired_difference(
                labels[part], probabilities[part], baseline.probabilities[part], weighting.get(part)
            )
            for name, baseline in baselines.items()
            if part in baseline.probabilities
        }
        for part in probabilities
    }
    on_part = differences.get(DECIDING_PART, {})
    reasons = (
        _why_poor(name, on_part[name], baselines[name].metrics[DECIDING_PART]["log_loss"], len(labels[DECIDING_PART]))
        for name in JUDGES
        if name in on_part
    )
    return Verdict(tuple(reason for reason in reasons if reason), differences)


def _why_poor(name: str, difference: PairedDifference, baseline_loss: float, rows: int) -> str:
    """Return the reason, or nothing where the model is as good, or might be."""
    excess = difference.log_loss
    if not (excess.low > 0 and excess.value > NEGLIGIBLE * baseline_loss):  # not for NaN
        return ""
    return (
        f"worse than {name_in_words(name)}: on {rows:,} {DECIDING_PART} rows its log loss is "
        f"{baseline_loss + excess.value:.5f} and not {baseline_loss:.5f}, a difference of {excess.value:.5f} "
        f"({excess.low:.5f} to {excess.high:.5f})"
    )


def name_in_words(baseline: str) -> str:
    """Return a baseline's name as it stands in a sentence."""
    words = baseline.replace("_", " ")
    return f"the {words}" if baseline == CONSTANT else words
