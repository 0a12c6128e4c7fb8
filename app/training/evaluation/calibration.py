"""Choose and fit a calibration on the validation part, so that probabilities match the observed clicks.

    p = sigmoid(a * logit + b)                                                              (Platt 1999, eq. 1)

Where a share R of the rows without a click was kept, the odds among these rows are 1 / R times those among all: ln R is
added to b, after it was fitted on rows like those that were trained on (King & Zeng 2001, section 4.1).

There are three candidates, the simplest first: the logits as they were trained (a = 1, b = 0), an offset alone (a = 1),
and Platt scaling (a and b). `auto`, the default, takes the simplest that is not clearly worse than another: whose
cross-fitted log loss is above no other's by more than a standard error of the difference (the one-standard-error rule,
Hastie, Tibshirani & Friedman 2009, section 7.10). Candidates that do not beat a constant are none where another does;
where none does, all but a constant is left. docs/training.md measures that it chooses well.

The model keeps (a, b) in `calibration_2`, a times `scale`, so they are in the artifact and every score that is served
is calibrated.
a is above 0 and changes no order: AUC is what it was. Where clicks do not rise with the logits the best a would be 0 or
less; a is then the least that keeps the order, `least_slope`, which leaves all but a constant.

Where clicks and predictions differ by no more than chance, Platt scaling keeps the level that the training rows gave.

The validation part also chose the best epoch, so its own log loss is a little too good, before and after; two numbers
fitted on thousands of rows add next to nothing to that. What calibration is worth is read from the test part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from app.models.base import CtrModel
from app.training.evaluation.calibration_methods import (
    MAX_SLOPE,
    METHODS,
    FittedMethod,
    cross_fitted_losses,
    fit_method,
    least_slope,
    offset_at,
)
from app.training.evaluation.platt import fit_level, fit_platt, log_losses, log_odds, sigmoid
from app.training.evaluation.reliability import Floats
from app.training.evaluation.weighting import Weighting, equal_weights

Method = Literal["auto", "platt", "offset", "none"]
MIN_CLICKS = 3
"""With fewer clicks nothing is compared."""
CLEAR = 1.0
"""A candidate is clearly worse than another if its log loss is above by this many standard errors."""
Losses = dict[FittedMethod, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Calibration:
    """Holds the numbers (a, b), and how they were chosen. The defaults are the identity."""

    slope: float = 1.0
    offset: float = 0.0
    method: FittedMethod = "none"
    """Tells what was fitted: nothing, the offset alone, or both numbers (`platt`)."""
    gain: float = 0.0
    """Tells by how many standard errors the method lowers the cross-fitted log loss of the validation part.

    Where nothing is scaled it is what the better of the other two would have gained.
    """
    reason: str = "nothing was fitted"
    """Says in a sentence why it is this method."""
    negatives_offset: float = 0.0
    """Is ln R where a share R of the rows without a click was kept. It is no part of `offset`, and added to it."""
    scale: float = 1.0
    """Multiplies the logits before all else: less than 1 in a model that was averaged with logistic regression."""

    @property
    def in_words(self) -> str:
        """Say what was done and why, as one statement."""
        done = {
            "none": "",
            "offset": f"an offset of {self.offset:+.3g}; ",
            "platt": f"slope {self.slope:.3g} and offset {self.offset:+.3g}; ",
        }
        kept = math.exp(self.negatives_offset)
        added = f"; {self.negatives_offset:+.3g}, as {kept:.3g} of the negatives were kept" if kept < 1 else ""
        return done[self.method] + self.reason + added

    @property
    def as_trained(self) -> Calibration:
        """Return the same without what was fitted: slope 1 and offset 0."""
        return Calibration(negatives_offset=self.negatives_offset, scale=self.scale)

    def apply(self, model: CtrModel) -> None:
        """Put slope and offset into the model, in place, with the scale and the kept negatives."""
        with torch.no_grad():
            model.calibration_2.copy_(torch.tensor([self.slope * self.scale, self.offset + self.negatives_offset]))

    def carried_over(
        self,
        logits_N: Floats,
        other_logits_N: Floats,
        other_labels_N: Floats,
        weighting: Weighting | None = None,
        other_weighting: Weighting | None = None,
    ) -> Calibration:
        """Return the calibration for a model that was fitted again on more rows.

        The slope stays, and so does the change of the level, in log odds. The level itself is the other model's: where
        the slope is small the offset is nearly all of it, and would be that of fewer and older rows.

        Args:
            logits_N: what this was fitted to.
            other_logits_N, other_labels_N: logits of the other model on the rows it was fitted on, and their labels.
            weighting, other_weighting: how much the rows of either count.
        """
        if self.method != "platt":
            return self
        weighting = weighting or equal_weights(len(logits_N))
        other_weighting = other_weighting or equal_weights(len(other_logits_N))
        as_kept = replace(self, negatives_offset=0.0)
        means = [weighting.mean(kept.probabilities(logits_N)) for kept in (as_kept, as_kept.as_trained)]
        change = log_odds(means[0]) - log_odds(means[1])
        level = log_odds(other_weighting.mean(other_labels_N)) + change
        share, slope = 1 / (1 + math.exp(-level)), self.slope * self.scale
        offset = fit_level(other_logits_N, share, slope, other_weighting.weights_N)
        return replace(self, offset=offset)

    def probabilities(self, logits_N: Floats) -> npt.NDArray[np.float64]:
        """Return the calibrated probabilities [N]."""
        return sigmoid(self.slope * self.scale * logits_N.astype(np.float64) + self.offset + self.negatives_offset)


def fit_calibration(
    method: Method, logits_N: Floats, labels_N: Floats, seed: int = 0, weighting: Weighting | None = None
) -> Calibration:
    """Fit the numbers to logits [N] and labels [N], by the method named or, for `auto`, by the one that they support.

    A slope above `MAX_SLOPE` is refused, and the offset alone takes its place.

    Args:
        seed: seeds the folds that the gain is measured with.
        weighting: how much each row counts; None counts all the same.
    """
    weighting = weighting or equal_weights(len(labels_N))
    clicks = int((labels_N > 0.5).sum())
    can_compare = min(clicks, len(labels_N) - clicks) >= MIN_CLICKS
    steepest = fit_platt(logits_N, labels_N, weighting.weights_N)[0]
    candidates = [name for name in METHODS if name != "platt" or steepest <= MAX_SLOPE]
    losses = cross_fitted_losses(logits_N, labels_N, seed, weighting) if can_compare else None
    if method != "auto":
        chosen = method if method in candidates else "offset"
        reason = f"{method} was asked for"
    elif losses is None:
        chosen, reason = (
            "none",
            f"left as trained: fewer than {MIN_CLICKS} rows with a click, or without one",
        )
    else:
        informative = [name for name in candidates if _beats_constant(losses[name], labels_N, weighting)]
        if not informative:
            slope = least_slope(logits_N)
            offset = offset_at(slope, logits_N, labels_N, weighting)
            reason = "the logits do not lower a constant's log loss by a standard error: all but a constant is left"
            return Calibration(slope, offset, "platt", _gain(losses, "none", "platt", weighting), reason)
        chosen = _simplest_not_clearly_worse(losses, informative, weighting)
        reason = _reason(losses, chosen, weighting)
    if method != "none" and "platt" not in candidates:
        reason += f"; the slope would be {steepest:.3g}, above {MAX_SLOPE:g}, so that it is 1"
    gain = 0.0
    if losses is not None:
        others = [chosen] if chosen != "none" else [name for name in candidates if name != "none"]
        gain = max(_gain(losses, "none", other, weighting) for other in others)
    slope, offset = fit_method(chosen, logits_N, labels_N, weighting)
    if chosen == "platt" and slope == least_slope(logits_N):
        reason += "; clicks do not rise with the logits, so that all but a constant is left"
    return Calibration(slope, offset, chosen, gain, reason)


def _beats_constant(losses_N: npt.NDArray[np.float64], labels_N: Floats, weighting: Weighting) -> bool:
    """Tell whether losses are below those of the best constant by more than `CLEAR` standard errors."""
    share = weighting.mean(labels_N)
    fall_N = log_losses(np.full(len(labels_N), log_odds(share)), labels_N) - losses_N
    fall, error = weighting.mean_and_error(fall_N)
    return fall > CLEAR * error


def _simplest_not_clearly_worse(losses: Losses, candidates: list[FittedMethod], weighting: Weighting) -> FittedMethod:
    return next(
        method for method in candidates if all(_gain(losses, method, other, weighting) <= CLEAR for other in candidates)
    )


def _gain(losses: Losses, of: FittedMethod, by: FittedMethod, weighting: Weighting) -> float:
    """Return the fall of the mean loss from one candidate to another, in standard errors of the difference."""
    fall, error = weighting.mean_and_error(losses[of] - losses[by])
    return fall / error if error > 0 else 0.0


def _reason(losses: Losses, chosen: FittedMethod, weighting: Weighting) -> str:
    offset, platt, slope = (
        _gain(losses, *pair, weighting) for pair in (("none", "offset"), ("none", "platt"), ("offset", "platt"))
    )
    return {
        "none": (
            f"left as trained: an offset changes the cross-fitted log loss by {-offset:+.1f} standard errors, a slope "
            f"and an offset by {-platt:+.1f}"
        ),
        "offset": f"an offset lowers the cross-fitted log loss by {offset:.1f} standard errors"
        + (f"; a slope adds no clear gain ({slope:+.1f})" if slope <= CLEAR else ""),
        "platt": (
            f"slope and offset lower the cross-fitted log loss by {platt:.1f} standard errors, by {slope:.1f} more "
            "than an offset alone"
        ),
    }[chosen]
