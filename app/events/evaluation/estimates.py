"""`ValueSums` estimates what a policy would have brought, from answers that another policy ordered.

An answer's first T places have rewards r (1 for a click), propensities q by which they were drawn, and propensities t
that the policy in question would have had, each given the items above. What happens at a place is taken to depend on
the items there and above, not on those below. Then the weight of place k is

    W_k = (t_1 / q_1) (t_2 / q_2) ... (t_k / q_k)

and the policy's value, clicks in the first T places of an answer, is estimated by

    IPS     sum over k of  mean(W_k r_k)
    SNIPS   sum over k of  mean(W_k r_k) / mean(W_k)

(McInerney et al. 2020, "Counterfactual Evaluation of Slate Recommendations with Sequential Reward Interactions"; self-
normalised by place). IPS has no bias. SNIPS has one that vanishes with the number of answers, and mostly a far smaller
variance. Errors are those of the delta method, an answer counting as one observation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.errors import DataError

Doubles = npt.NDArray[np.float64]

NORMAL_95 = 1.959964
"""Standard errors on either side of an estimate that hold the truth in 95 of 100 cases."""


class Estimate(NamedTuple):
    """A value with its standard error."""

    value: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """Return the bounds that hold the truth in 95 of 100 cases, if there are answers enough."""
        return self.value - NORMAL_95 * self.error, self.value + NORMAL_95 * self.error


class ValueSums:
    """Sums over answers, whose number does not matter for the memory."""

    def __init__(self, places: int) -> None:
        """
        Args:
            places: T, how many places count.
        """
        self.places = places
        self.answers = 0
        # Of each answer: W_k r_k [T], W_k [T], the sum of r_k, and 1.
        self._sums = np.zeros(2 * places + 2)
        self._products = np.zeros((2 * places + 2, 2 * places + 2))

    def add(self, target_BT: Doubles, logged_BT: Doubles, reward_BT: Doubles) -> None:
        """Count B answers.

        Args:
            target_BT, logged_BT: propensities of the policy in question, and those by which the order was drawn. Behind
                the end of an answer both are 1.
            reward_BT: 1 for a click; 0 behind the end.
        """
        weight_BT = np.cumprod(target_BT / logged_BT, 1)
        total_B1 = reward_BT.sum(1, keepdims=True)
        observed = np.hstack([weight_BT * reward_BT, weight_BT, total_B1, np.ones_like(total_B1)])
        self.answers += len(observed)
        self._sums += observed.sum(0)
        self._products += observed.T @ observed

    @property
    def mean_weights(self) -> list[float]:
        """Return the mean weight of each place: about 1, where the policy in question takes recorded items alone."""
        return [float(weight) / self.answers for weight in self._sums[self._weights]]

    @property
    def effective_answers(self) -> list[float]:
        """Return by place how many answers of the policy itself would tell as much: Kish's (sum W)^2 / sum W^2."""
        squares = self._products.diagonal()[self._weights]
        sums = self._sums[self._weights]
        return [float(total**2 / square) if square else 0.0 for total, square in zip(sums, squares, strict=True)]

    def logged(self) -> Estimate:
        """Return the value of the policies that drew the orders."""
        return self._estimate(self._last())

    def ips(self) -> Estimate:
        """Return the value of the policy in question by inverse propensity scores."""
        coefficients = np.zeros_like(self._sums)
        coefficients[: self.places] = 1.0
        return self._estimate(coefficients)

    def snips(self) -> Estimate:
        """Return the value of the policy in question, self-normalised. Raises DataError if no answer has any weight."""
        value, influence = self._self_normalised()
        return Estimate(value, self._estimate(influence).error)

    def gain(self) -> Estimate:
        """Return by how much the policy in question is better than those that drew the orders, self-normalised.

        Both are of the same answers, so that this is more certain than either. Raises what `snips` raises.
        """
        value, influence = self._self_normalised()
        return Estimate(value - self.logged().value, self._estimate(influence - self._last()).error)

    @property
    def _weights(self) -> slice:
        return slice(self.places, 2 * self.places)

    def _last(self) -> Doubles:
        coefficients = np.zeros_like(self._sums)
        coefficients[-2] = 1.0
        return coefficients

    def _self_normalised(self) -> tuple[float, Doubles]:
        """Return the value, and of which observations its error is the sum, by what coefficients."""
        rewards, weights = self._sums[: self.places], self._sums[self._weights]
        if not (weights > 0).all():
            raise DataError(
                "no recorded answer begins as this policy would have it, in as many places: count fewer places, record "
                "more answers, or explore more"
            )
        means = rewards / weights
        influence = np.zeros_like(self._sums)
        influence[: self.places] = self.answers / weights
        influence[self._weights] = -self.answers * means / weights
        return float(means.sum()), influence

    def _estimate(self, coefficients: Doubles) -> Estimate:
        """Return the mean of a linear function of what was observed, and its standard error."""
        mean = float(coefficients @ self._sums) / self.answers
        square = float(coefficients @ self._products @ coefficients) / self.answers
        variance = max(0.0, square - mean**2) / max(1, self.answers - 1)
        return Estimate(mean, math.sqrt(variance))
