"""`ClickRates` compares the clicks on a canary's answers with those on stable's, at any time, as often as one likes.

The interval is always valid: with the probability that was asked for it covers the true difference at every moment at
once, so a look after each click costs nothing of it. It is the normal-mixture sequential test (Robbins 1970, Annals of
Mathematical Statistics 41; mSPRT in Johari, Koomen, Pekelis and Walsh 2022, Operations Research 70) on the score of the
difference.

Clicks are not independent: those of one request, and those of one user, whom a canary keeps. So users are put into
groups by a hash, and how far the groups' clicks scatter says how much wider than by independent clicks the interval is
(the dispersion of a quasi-Poisson model, McCullagh and Nelder 1989, chapter 9). Both arms' users scatter alike, so a
canary of few users is judged by how the many of stable do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

STABLE_ARM, CANARY_ARM = 0, 1
TYPICAL_DIFFERENCE = 0.15
"""Standard deviation of the mixture: differences of this size are found soonest, others hardly later."""
MIN_EXPECTED = 25.0
"""Clicks that each arm has to expect before anything is said: with fewer the score is not nearly normal."""

Counts = npt.NDArray[np.float64]


class ClickInterval(NamedTuple):
    """By how much a canary's clicks per request differ from stable's, relative to those of both together."""

    difference: float
    low: float
    high: float
    clicks: int
    """Of the canary."""
    expected: float
    """Clicks of the canary if it had the click rate of both together."""
    dispersion: float
    """How many times the variance of independent clicks there is; 1 at least."""


@dataclass
class ClickRates:
    """Requests and clicks of two arms by group of users."""

    groups: int
    requests: Counts = field(init=False)
    """[2, groups], of stable and of the canary."""
    clicks: Counts = field(init=False)
    """[2, groups]."""

    def __post_init__(self) -> None:
        self.requests = np.zeros((2, self.groups))
        self.clicks = np.zeros((2, self.groups))

    def interval(self, error: float) -> ClickInterval | None:
        """Return the always-valid interval of the difference; None while there are too few clicks for one.

        Args:
            error: probability with which the interval may ever miss the true difference.
        """
        requests, clicks = self.requests.sum(axis=1), self.clicks.sum(axis=1)
        total = float(clicks.sum())
        if not requests.all() or not total:
            return None
        share = float(requests[CANARY_ARM] / requests.sum())
        if total * min(share, 1 - share) < MIN_EXPECTED:
            return None
        rates = clicks / requests
        scatter = float(((self.clicks - rates[:, None] * self.requests) ** 2).sum())
        dispersion = max(1.0, scatter / total * self.groups / (self.groups - 1))
        expected = total * share
        information = expected * (1 - share) / dispersion
        difference = float(clicks[CANARY_ARM] - expected) / (expected * (1 - share))
        half = _half_width(information, error)
        return ClickInterval(
            difference, difference - half, difference + half, int(clicks[CANARY_ARM]), expected, dispersion
        )


def _half_width(information: float, error: float) -> float:
    """Return half the interval's width: where the mixture's likelihood ratio reaches 1 / `error`.

    With s the score of a difference d, i the information and t the mixture's deviation, the ratio is
    exp(t² s² / (2 (1 + t² i))) / sqrt(1 + t² i); at s = i (d - true difference) it is a martingale that begins at 1.
    """
    spread = TYPICAL_DIFFERENCE**2
    grown = 1 + spread * information
    return math.sqrt(grown * (2 * math.log(1 / error) + math.log(grown)) / spread) / information
