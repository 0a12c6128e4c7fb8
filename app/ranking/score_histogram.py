"""`ScoreStats`: running totals of what one version did, with a histogram of a sample of its scores."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from random import random

import numpy as np
import numpy.typing as npt

from app.observability.metrics import SCORE_BOUNDS
from app.stats import histogram_quantile, ks_distance

SUBDIVISIONS = 4
"""Buckets of this histogram per exported bucket, so that quantiles and distances are finer."""
BOUNDS = [
    low + (high - low) * part / SUBDIVISIONS
    for low, high in zip((0.0, *SCORE_BOUNDS), SCORE_BOUNDS, strict=False)
    for part in range(1, SUBDIVISIONS + 1)
]
"""Upper bounds of the buckets; one more bucket holds the scores above the last."""
SAMPLE_SIZE = 4
"""Scores sampled from an answer; up to twice as many where its length is no multiple of it."""


@dataclass(slots=True)
class ScoreStats:
    """Running totals of one version under one label."""

    requests: int = 0
    """Requests that it answered."""
    errors: int = 0
    """Requests that it failed to score."""
    non_finite: int = 0
    """Answers in which a score was not a number; none of their scores are sampled."""
    sampled: int = 0
    total: float = 0.0
    """Sum of the sampled scores."""
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """Number of sampled scores by bucket of `BOUNDS`."""

    @property
    def attempts(self) -> int:
        return self.requests + self.errors

    @property
    def mean(self) -> float | None:
        return self.total / self.sampled if self.sampled else None

    def add_scores(self, scores_N: npt.NDArray[np.float32]) -> None:
        """Add a sample of one answer's scores, spread evenly over its order.

        The sample's size does not grow with the answer's, so an answer of a thousand costs no more than one of ten.
        """
        step = len(scores_N) // SAMPLE_SIZE or 1
        sample = scores_N[int(random() * step) :: step].tolist()
        counts = self.counts
        for score in sample:
            counts[bisect_left(BOUNDS, score)] += 1
        self.total += sum(sample)
        self.sampled += len(sample)

    def copy(self) -> ScoreStats:
        return ScoreStats(self.requests, self.errors, self.non_finite, self.sampled, self.total, list(self.counts))

    def since(self, earlier: ScoreStats) -> ScoreStats:
        """Return what was added after `earlier`, a copy of this object, was taken."""
        return ScoreStats(
            self.requests - earlier.requests,
            self.errors - earlier.errors,
            self.non_finite - earlier.non_finite,
            self.sampled - earlier.sampled,
            self.total - earlier.total,
            [count - before for count, before in zip(self.counts, earlier.counts, strict=True)],
        )

    def quantile(self, share: float) -> float | None:
        """Return the score that this share of the sample lies below, to within a bucket of `BOUNDS`."""
        return histogram_quantile(self.counts, BOUNDS, share, low=0.0, high=1.0)

    def distance(self, other: ScoreStats) -> float:
        """Return the Kolmogorov-Smirnov distance in [0, 1] of the two samples."""
        return ks_distance(self.counts, other.counts)
