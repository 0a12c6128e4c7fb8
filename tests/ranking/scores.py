"""Scores as a service answers them, and the totals of given scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.ranking.score_histogram import BOUNDS, ScoreStats


def answer_scores(
    rng: np.random.Generator, shift: float = 0.0, spread: float = 1.0, count: int = 50
) -> npt.NDArray[np.float32]:
    """Return one answer's scores, best first: a user who likes more or less, and items around that."""
    logit_N = rng.normal(-2 + shift + 0.5 * rng.normal(), spread, count)
    return np.sort(1 / (1 + np.exp(-logit_N)))[::-1].astype(np.float32)


def stats_of(sampled: npt.NDArray, requests: int = 1000, errors: int = 0, non_finite: int = 0) -> ScoreStats:
    stats = ScoreStats(requests, errors, non_finite, len(sampled), float(sampled.sum()))
    for score in sampled:
        stats.counts[int(np.searchsorted(BOUNDS, score))] += 1
    return stats
