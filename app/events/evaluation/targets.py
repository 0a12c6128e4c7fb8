"""`target_propensities` says how likely a policy would have put the recorded items where they are.

The policy chooses among the recorded items: of others nothing is known. Where it hardly ever takes any other, that is
what it would have done.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.events.evaluation.estimates import Doubles
from app.ranking_policy import EPSILON, SOFTMAX, RankingPolicy

LEAST_PROBABILITY, GREATEST_PROBABILITY = 1e-12, 1 - 2**-25
"""Within which a probability is kept before its logit is taken; those of `native/src/explore.h`."""


def target_propensities(
    policy: RankingPolicy,
    score_BK: Doubles,
    length_B: npt.NDArray[np.int64],
    candidates_B: npt.NDArray[np.int64],
    places: int,
) -> Doubles:
    """Return the propensities [B, T] of the first places of B answers, each given the items above; 1 behind an end.

    Args:
        score_BK: probabilities of the recorded items, in the order that was shown.
        length_B: how many are recorded of each answer; what is behind them does not matter.
        candidates_B: how many there were, of which epsilon draws one.
        places: T, at most K.
    """
    is_there_BK = np.arange(score_BK.shape[1]) < length_B[:, None]
    p_BK = np.clip(score_BK, LEAST_PROBABILITY, GREATEST_PROBABILITY)
    logit_BK = np.where(is_there_BK, np.log(p_BK) - np.log1p(-p_BK), -np.inf)
    if policy.name == SOFTMAX:
        weight_BK = logit_BK / policy.parameter
        rest_BK = np.logaddexp.accumulate(weight_BK[:, ::-1], 1)[:, ::-1]
        with np.errstate(invalid="ignore"):  # behind the end
            propensity_BT = np.exp(weight_BK[:, :places] - rest_BK[:, :places])
    else:
        propensity_BT = _greedy(logit_BK, places)
        if policy.name == EPSILON:
            left_BT = np.maximum(1, candidates_B[:, None] - np.arange(places))
            propensity_BT = policy.parameter / left_BT + (1 - policy.parameter) * propensity_BT
    return np.where(is_there_BK[:, :places], propensity_BT, 1.0)


def _greedy(logit_BK: Doubles, places: int) -> Doubles:
    """Return 1 where an item has the highest score of those that are left, a share of it where some have the same."""
    highest_BK = np.maximum.accumulate(logit_BK[:, ::-1], 1)[:, ::-1]
    propensity_BT = np.empty((len(logit_BK), places))
    for place in range(places):
        ties_B = (logit_BK[:, place:] == highest_BK[:, place, None]).sum(1)
        propensity_BT[:, place] = (logit_BK[:, place] == highest_BK[:, place]) / ties_B
    return propensity_BT
