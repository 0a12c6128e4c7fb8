"""Search the options that matter most by fits on the validation part, inside a budget of epochs.

The first fit is that of the rules; the default search takes at most three times its epochs. Fits on a part of the rows
or for the first few epochs would be cheaper and choose wrongly (docs/adr/0014): the strongest penalty is the slowest to
begin with. The test part is never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from app.errors import ConfigError, DataError
from app.models.base import CtrModel
from app.training.job_config import JobConfig
from app.training.job_results import PreparedData
from app.training.loop.trainer import FitResult
from app.training.recipe.rules import alternatives, further_alternatives, with_target_statistics

RULES = "rules"
BUDGET = {"default": 3.0, "high": 12.0}
"""A search may take so many times the epochs of the first fit, those included."""
LARGE_BATCH_COST = 0.75
"""An epoch in batches twice as large costs so much of another one."""
EPOCHS_MORE = 1.25
"""An alternative gets at most so many times the epochs of the first fit."""
PATIENCE, PATIENCE_STEPS = 2, 40
MIN_EPOCHS = 2
MIN_GAIN = 1e-4
"""An alternative is chosen if its validation log loss is lower by so much, in nats."""
STATISTICS_GAIN = 0.01
"""Target statistics are chosen for one hundredth of the log loss: those across sides cost each request more."""


@dataclass(frozen=True)
class FittedModel:
    """Holds a model that was fitted, with the rows as its configuration prepares them."""

    prepared: PreparedData
    model: CtrModel
    fitted: FitResult


Fit = Callable[[JobConfig, str], FittedModel]
"""Fits a configuration; the name distinguishes it from the others of the run."""


@dataclass(frozen=True)
class TriedFit:
    """Records one fit of the search."""

    name: str
    validation_loss: float
    epochs: int


@dataclass(frozen=True)
class SearchResult:
    """Holds the best fit of a search, and all that were tried."""

    config: JobConfig
    best: FittedModel
    chosen: str
    trials: tuple[TriedFit, ...]

    def summary(self) -> dict[str, Any]:
        """Return what the manifest says of the choice."""
        return {"chosen": self.chosen, "tried": [asdict(trial) for trial in self.trials]}


class RecipeSearch:
    """Tries one configuration after the other until the budget is spent, and keeps the best."""

    def __init__(self, config: JobConfig, fit: Fit, notify: Callable[[str], None] = lambda message: None) -> None:
        """Fit the rules' configuration. Raises DataError if it diverges."""
        self._fit, self._notify = fit, notify
        first = fit(config, RULES)
        self._batch_size = config.trainer.batch_size
        self._first_epochs = len(first.fitted.epochs)
        self._left = BUDGET.get(config.effort or "", 1.0) * self._first_epochs - self._first_epochs
        trial = TriedFit(RULES, first.fitted.best_loss, self._first_epochs)
        self.result = SearchResult(config, first, RULES, (trial,))

    def run(self) -> SearchResult:
        """Try the alternatives as far as the budget reaches, and return the best."""
        config = self.result.config
        if config.effort in (None, "quick"):
            return self.result
        rows = len(self.result.best.prepared.rows["train"].labels_N)
        for kind in ("pairs", "fields") if config.effort == "high" else ("pairs",):
            for name, other in with_target_statistics(self.result.config, kind).items():
                self._try(name, other, least_gain=STATISTICS_GAIN)
        for name, other in alternatives(self.result.config, rows).items():
            self._try(name, other)
        if config.effort == "high":
            for name, other in further_alternatives(self.result.config).items():
                self._try(name, other)
        return self.result

    def _try(self, name: str, config: JobConfig, least_gain: float = 0.0) -> None:
        """Fit a configuration and keep it if it is better.

        Args:
            least_gain: share of the log loss that it must be better by.
        """
        cost = LARGE_BATCH_COST if config.trainer.batch_size > self._batch_size else 1.0
        epochs = min(math.ceil(EPOCHS_MORE * self._first_epochs), int(self._left / cost))
        if epochs < MIN_EPOCHS:
            return
        if "epochs" in config.given:
            epochs = min(epochs, config.trainer.epochs)
        trainer = replace(config.trainer, epochs=epochs, patience=PATIENCE, patience_steps=PATIENCE_STEPS)
        config = replace(config, trainer=trainer)
        self._notify(f"Trying {name}")
        try:
            tried = self._fit(config, name)
        except (ConfigError, DataError) as error:  # it diverges, or these rows are too many for target statistics
            self._notify(f"{name}: {error}")
            return
        loss, count = tried.fitted.best_loss, len(tried.fitted.epochs)
        self._left -= cost * count
        trials = (*self.result.trials, TriedFit(name, loss, count))
        best_loss = self.result.best.fitted.best_loss
        if loss < best_loss - max(MIN_GAIN, least_gain * best_loss):
            self.result = SearchResult(config, tried, name, trials)
        else:
            self.result = replace(self.result, trials=trials)
