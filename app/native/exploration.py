"""`OrderDrawer` puts ranked candidates into an order that a policy draws, with the propensity of each place, in C.

The propensity of a place is the probability with which the policy puts its candidate there, given those above it. The
product of the first k is the probability of the first k places.
"""

from __future__ import annotations

import ctypes

import numpy as np

from app.native import bindings, layout
from app.native.bindings import address_of
from app.native.layout import DrawnBy, Isa
from app.native.scorer import BEST_FLOAT32_ISA, Floats, Positions
from app.ranking_policy import EPSILON, SOFTMAX, RankingPolicy

_drawn_by = {SOFTMAX: int(DrawnBy.SOFTMAX), EPSILON: int(DrawnBy.EPSILON)}


Draw = tuple[Positions, Floats, Floats]
"""The first K places of an order: positions in the request [K], probabilities [K], propensities [P] of the first."""


class OrderDrawer:
    """Draws orders by one policy. For one thread: the scratch space is the object's own."""

    def __init__(self, policy: RankingPolicy, isa: Isa = BEST_FLOAT32_ISA) -> None:
        """
        Args:
            policy: softmax or epsilon.
            isa: one of `SUPPORTED_ISAS`; all of them draw the same.
        """
        self.policy = policy
        self._struct = layout.Policy(_drawn_by[policy.name], isa, policy.parameter, None)
        self._pointer = ctypes.addressof(self._struct)
        self._grow_scratch(512)

    def draw(self, seed: int, score_N: Floats, position_N: Positions, places: int, top: int) -> Draw:
        """Draw the first places of an order; the same seed and scores give the same order.

        Args:
            seed: 64 bits.
            score_N: probabilities, descending, none of them NaN; contiguous, as `position_N`.
            position_N: each one's position in the request, by which softmax numbers its random numbers.
            places: how many are wanted; all N at most are drawn.
            top: of how many places the propensities are wanted; of all K at most.
        """
        n = len(score_N)
        if n > self._capacity:
            self._grow_scratch(n)
        k = min(places, n)
        p = min(top, k)
        block_2K = np.empty(2 * k, np.int64)  # to make three arrays takes longer
        bindings.draw_order(
            self._pointer, seed, address_of(score_N), address_of(position_N), n, k, p, address_of(block_2K)
        )
        floats_2K = block_2K[k:].view(np.float32)
        return block_2K[:k], floats_2K[:k], floats_2K[k : k + p]

    def _grow_scratch(self, candidates: int) -> None:
        self._capacity, self._scratch_4N = candidates, np.empty(4 * candidates)
        self._struct.scratch_4N = address_of(self._scratch_4N)
