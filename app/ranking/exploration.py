"""`Explorer` has the order of an answer drawn, so that the log can tell what another order would have brought.

The draw follows from the id of the answer's impression: with the same scores it gives the same order again.
docs/exploration.md is the page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from app.native.exploration import OrderDrawer
from app.native.scorer import Floats, Positions
from app.ranking.request import RankRequest
from app.ranking.routing import Route, arm
from app.ranking_policy import LABELS, LabelPolicy, RankingPolicy

SHARE_SALT = "ctr-explore\x1f"
"""Another than that of the canary's share, so that either share has its part of the other."""


class Exploration(NamedTuple):
    """How the order of an answer was drawn."""

    policy: RankingPolicy
    propensities: Floats
    """[P] of the first items: the probability with which the policy puts each where it is, given those before it."""
    best_scores: Floats
    """[K] the highest scores, descending: what the answer would have had without."""


class Explorer:
    """Draws orders. One per process, for the thread of its event loop."""

    def __init__(self, policies: Iterable[LabelPolicy], share: float = 1.0, top: int = 10_000) -> None:
        """
        Args:
            policies: of labels; the label that is empty is each of `LABELS`.
            share: of the users, and of guests' requests, in [0, 1].
            top: of how many items of an answer the propensities are wanted.
        """
        self._drawers = {
            label: OrderDrawer(one.policy) for one in policies for label in ([one.label] if one.label else LABELS)
        }
        self._share = share
        self._top = top

    def explore(
        self,
        request: RankRequest,
        chosen: Route,
        impression_id: str,
        score_N: Floats,
        order_N: Positions,
        best_K: Floats,
    ) -> tuple[Exploration, Positions, Floats] | None:
        """Draw the first K places of an answer: return how, the positions [K] in the request, and their scores [K].

        None where nothing is drawn: the caller chose the version, its label has no policy, or the user is not of the
        share.

        Args:
            impression_id: which the draw follows from.
            score_N, order_N: probabilities, descending and without NaN, and each one's position in the request.
            best_K: the first K of the scores.
        """
        drawer = self._drawers.get(chosen.label)
        if drawer is None or request.model is not None or (self._share < 1.0 and not self._is_of_share(request)):
            return None
        seed = seed_of(impression_id)
        order_K, score_K, propensity_P = drawer.draw(seed, score_N, order_N, len(best_K), self._top)
        return Exploration(drawer.policy, propensity_P, best_K), order_K, score_K

    def _is_of_share(self, request: RankRequest) -> bool:
        who = repr(request.guest_arm) if request.user_id is None else request.user_id
        return arm(who, SHARE_SALT) < self._share


def seed_of(impression_id: str) -> int:
    """Return the seed of an answer's random numbers."""
    return xxh3_64_intdigest(impression_id.encode())
