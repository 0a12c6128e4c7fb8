"""What the shadow's scores are compared with, and the totals of all comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.ranking.ranker import Ranking
from app.stats import spearman

ShadowOutcome = Literal["compared", "skipped", "failed"]


@dataclass(frozen=True)
class ShadowComparison:
    """One request's scores by the answering version and by the shadow, over a sample of the answer's items."""

    answer_mean: float
    shadow_mean: float
    correlation: float | None
    """Spearman's correlation of the two orders; None where all scores of one side are tied."""

    @property
    def ratio(self) -> float | None:
        return self.shadow_mean / self.answer_mean if self.answer_mean else None


def compare(answer_N: npt.NDArray[np.float32], shadow: Ranking) -> ShadowComparison:
    """Compare the scores that items were answered with and the shadow's ranking of the same items, in that order."""
    answered_N, shadow_N = answer_N.astype(np.float64), np.empty(len(answer_N))
    shadow_N[shadow.order] = shadow.scores
    tied = np.ptp(answered_N) == 0 or np.ptp(shadow_N) == 0
    correlation = None if tied else spearman(shadow_N, answered_N)
    return ShadowComparison(float(answered_N.mean()), float(shadow_N.mean()), correlation)


@dataclass(slots=True)
class ShadowStats:
    """Running totals of the live shadow since it went live."""

    version: int
    compared: int = 0
    skipped: int = 0
    """Requests that were drawn while the process was busy or the shadow had just changed."""
    failed: int = 0
    """Requests over which the shadow raised an error or gave scores that are not finite."""
    answer_total: float = 0.0
    """Sum of the comparisons' `answer_mean`."""
    shadow_total: float = 0.0
    """Sum of the comparisons' `shadow_mean`."""
    correlated: int = 0
    """Comparisons that have a correlation."""
    correlation_total: float = 0.0

    @property
    def shift(self) -> float | None:
        """Mean score of the shadow less that of the answers."""
        return (self.shadow_total - self.answer_total) / self.compared if self.compared else None

    @property
    def ratio(self) -> float | None:
        """Mean score of the shadow over that of the answers."""
        return self.shadow_total / self.answer_total if self.answer_total else None

    @property
    def correlation(self) -> float | None:
        return self.correlation_total / self.correlated if self.correlated else None

    def add(self, outcome: ShadowOutcome, comparison: ShadowComparison | None = None) -> None:
        """Count a drawn request, with its comparison if there was one."""
        if outcome == "compared":
            self.compared += 1
        elif outcome == "skipped":
            self.skipped += 1
        else:
            self.failed += 1
        if comparison is not None:
            self.answer_total += comparison.answer_mean
            self.shadow_total += comparison.shadow_mean
            if comparison.correlation is not None:
                self.correlated += 1
                self.correlation_total += comparison.correlation
