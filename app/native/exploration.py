"""`draw` puts ranked candidates into an order that a policy draws, with the propensity of each place, in one call of C.

The propensity of a place is the probability with which the policy puts its candidate there, given those above it. The
product of the first k is the probability of the first k places.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from app.native import bindings
from app.native.bindings import address_of
from app.native.layout import DrawnBy, Isa
from app.native.scorer import BEST_FLOAT32_ISA, Floats, Positions
from app.ranking_policy import EPSILON, SOFTMAX, RankingPolicy

_drawn_by = {SOFTMAX: int(DrawnBy.SOFTMAX), EPSILON: int(DrawnBy.EPSILON)}


class Draw(NamedTuple):
    """The first K places of an order that was drawn."""

    scores: Floats
    """[K] probabilities."""
    order: Positions
    """[K] positions in the request."""
    propensities: Floats
    """[P] of the first places."""


def draw(
    policy: RankingPolicy,
    seed: int,
    score_N: Floats,
    position_N: Positions,
    places: int,
    top: int = 100_000,
    isa: Isa = BEST_FLOAT32_ISA,
) -> Draw:
    """Draw the first places of an order; the same seed and scores give the same order.

    Args:
        policy: softmax or epsilon.
        seed: 64 bits.
        score_N: probabilities, descending, none of them NaN; contiguous, as `position_N`.
        position_N: each one's position in the request, by which softmax numbers its random numbers.
        places: how many are wanted; all N at most are drawn.
        top: of how many places the propensities are wanted; of all K at most.
        isa: one of `SUPPORTED_ISAS`; all of them draw the same.
    """
    n = len(score_N)
    k = min(places, n)
    block = np.empty(6 * n, np.int64)
    start = address_of(block)
    bindings.explore(
        isa,
        _drawn_by[policy.name],
        policy.parameter,
        seed,
        address_of(score_N),
        address_of(position_N),
        n,
        k,
        start + n * 8,
        start,
        start + n * 12,
        start + n * 16,
    )
    floats = block[n : 2 * n].view(np.float32)
    return Draw(floats[:k], block[:k], floats[n : n + min(k, top)])
