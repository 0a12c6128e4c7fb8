"""A simulated audience that clicks, for tests of what is judged by clicks."""

from __future__ import annotations

import numpy as np

from app.ranking.click_rates import ClickRates


class Audience:
    """Users who keep their arm, ask unequally often, and like what they see unequally well."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        share: float,
        users: int,
        lift: float = 1.0,
        rate: float = 0.3,
        often: float = 1.0,
        groups: int = 1024,
    ) -> None:
        """
        Args:
            share: of the users, whom the canary answers.
            lift: their click rate over what it were with stable.
            rate: clicks a request.
            often: how unequally often users ask and like: 0 for all alike.
        """
        self._rng, self._rate, self._lift = rng, rate, lift
        self.rates = ClickRates(groups)
        self._canary = rng.random(users) < share
        self._group = rng.integers(0, groups, users)
        weight = rng.gamma(1 / often, often, users) if often else np.ones(users)
        self._asks_to = np.cumsum(weight / weight.sum())
        self._likes = rng.gamma(1 / often, often, users) if often else np.ones(users)

    def ask(self, requests: int) -> None:
        """Let users ask for so many answers and click on them."""
        users = np.searchsorted(self._asks_to, self._rng.random(requests)).clip(0, len(self._canary) - 1)
        arms = self._canary[users].astype(int)
        # A request that pleases gets several clicks: a Gamma of mean 1 and variance 0.3 of each request's own.
        mean = self._rate * self._likes[users] * np.where(arms, self._lift, 1.0) * self._rng.gamma(3.3, 0.3, requests)
        clicks = self._rng.poisson(mean)
        np.add.at(self.rates.requests, (arms, self._group[users]), 1)
        np.add.at(self.rates.clicks, (arms, self._group[users]), clicks)
