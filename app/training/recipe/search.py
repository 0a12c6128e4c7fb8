"""Search the options that matter most by fits on the validation part, inside a budget of epochs.

The first fit is that of the rules; the default search takes at most three times its epochs. Fits on a part of the rows
or for the first few epochs would be cheaper and choose wrongly (docs/adr/0014): the strongest penalty is the slowest to
begin with. Target statistics alone show what they are worth at once, and are tried for an epoch beforehand. The test
part is never looked at.
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
from app.training.recipe.facts import DataFacts
from app.training.recipe.rules import PAIRS, alternatives, further_alternatives, target_statistics

RULES = "rules"
FEW_ROWS = 10_000
"""With fewer rows a fit takes a second or less, and everything is tried in full."""
STATISTICS_ROWS, STATISTICS_OF_A_CLASS = 1_500, 100
"""With fewer rows, or fewer of the rarer class, validation cannot tell whether target statistics help, and chance
chooses them too often."""
BUDGET = 2.5
"""The default search takes so many times the epochs of its first whole fit, that one included; the first epochs that
tell whether statistics help are up to half a fit more."""
LARGE_BATCH_COST = 0.9
"""An epoch in larger batches costs so much of another one."""
EPOCHS_MORE = 1.25
"""An alternative gets at most so many times the epochs of the first fit."""
PATIENCE, PATIENCE_STEPS = 2, 40
MIN_EPOCHS = 2
PROBE_STEPS, PROBE_GAIN = 60, 0.02
"""Target statistics are taken if they lower the log loss by this share after the first epochs, of so many steps."""
MIN_GAIN = 1e-4
"""An alternative is chosen if its validation log loss is lower by so much, in nats."""
STATISTICS_GAIN = 0.01
"""Target statistics are chosen for this share of the log loss: those across sides cost each request more."""


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
    validation_loss: float | None
    """Mean log loss in nats; None if the fit failed."""
    epochs: int


@dataclass(frozen=True)
class SearchResult:
    """Holds the best fit of a search, and all that were tried."""

    config: JobConfig
    best: FittedModel
    chosen: str
    tried: tuple[TriedFit, ...]

    def summary(self) -> dict[str, Any]:
        """Return what the manifest says of the choice."""
        return {"chosen": self.chosen, "tried": [asdict(fit) for fit in self.tried]}


class RecipeSearch:
    """Tries one configuration after the other until the budget is spent, and keeps the best."""

    def __init__(
        self, config: JobConfig, facts: DataFacts, fit: Fit, notify: Callable[[str], None] = lambda message: None
    ) -> None:
        """Prepare a search.

        Args:
            config: what the rules chose.
            facts: what the training rows are.
        """
        self._config, self._facts, self._fit, self._notify = config, facts, fit, notify
        self._tried: list[TriedFit] = []

    def run(self) -> SearchResult:
        """Fit the rules' configuration, and its alternatives as far as the effort allows; return the best.

        Raises:
            DataError: the first fit diverges; an alternative that does is passed over.
        """
        config = self._config
        if config.effort in (None, "quick"):
            return self._first(config, RULES)
        has_time = config.effort == "high" or self._facts.rows < FEW_ROWS
        has_enough = self._facts.rows >= STATISTICS_ROWS and self._facts.rarer_class >= STATISTICS_OF_A_CLASS
        statistics = target_statistics(config) if has_enough and not self._facts.rows_are_mapped else {}
        if statistics and not has_time and self._is_promising(statistics[PAIRS]):
            return self._first(statistics[PAIRS], PAIRS)
        best = self._first(config, RULES)
        first_epochs = self._tried[-1].epochs
        left = math.inf if has_time else (BUDGET - 1) * first_epochs
        for name, other in statistics.items() if has_time else ():
            best = self._better(best, name, other, 2 * first_epochs, STATISTICS_GAIN)
        for name, other in alternatives(best.config, self._facts.rows).items():
            cost = LARGE_BATCH_COST if other.trainer.batch_size > config.trainer.batch_size else 1.0
            epochs = int(min(math.ceil(EPOCHS_MORE * first_epochs), left / cost))
            if epochs >= MIN_EPOCHS:
                best = self._better(best, name, other, epochs)
                left -= cost * self._tried[-1].epochs
        if config.effort == "high":
            for name, other in further_alternatives(best.config).items():
                best = self._better(best, name, other, 2 * first_epochs)
        return replace(best, tried=tuple(self._tried))

    def _is_promising(self, with_statistics: JobConfig) -> bool:
        """Tell whether target statistics gain at once: they are numbers, from which nothing has to be learned first."""
        steps = -(-self._facts.rows // self._config.trainer.batch_size)
        epochs = -(-PROBE_STEPS // steps)
        losses = []
        for name, config in ((RULES, self._config), (PAIRS, with_statistics)):
            fitted = self._attempt(f"{name}, at first", _limited(config, epochs))
            losses.append(fitted.fitted.best_loss if fitted else math.inf)
        return losses[1] < (1 - PROBE_GAIN) * losses[0]

    def _first(self, config: JobConfig, name: str) -> SearchResult:
        return SearchResult(config, self._recorded_fit(name, config), name, tuple(self._tried))

    def _better(
        self, best: SearchResult, name: str, config: JobConfig, epochs: int, least_gain: float = 0.0
    ) -> SearchResult:
        """Fit a configuration; return it if it is better by `least_gain`, a share of the log loss, else the best."""
        config = _limited(config, epochs)
        fitted = self._attempt(name, config)
        best_loss = best.best.fitted.best_loss
        if fitted and fitted.fitted.best_loss < best_loss - max(MIN_GAIN, least_gain * best_loss):
            return SearchResult(config, fitted, name, tuple(self._tried))
        return best

    def _attempt(self, name: str, config: JobConfig) -> FittedModel | None:
        self._notify(f"Trying {name}")
        try:
            return self._recorded_fit(name, config)
        except (ConfigError, DataError) as error:  # it diverges, say
            self._notify(f"{name}: {error}")
            self._tried.append(TriedFit(name, None, 0))
            return None

    def _recorded_fit(self, name: str, config: JobConfig) -> FittedModel:
        fitted = self._fit(config, name)
        self._tried.append(TriedFit(name, fitted.fitted.best_loss, len(fitted.fitted.epochs)))
        return fitted


def _limited(config: JobConfig, epochs: int) -> JobConfig:
    """Return the configuration with at most so many epochs, and the patience of a search."""
    epochs = max(min(epochs, config.trainer.epochs), 1)
    trainer = replace(config.trainer, epochs=epochs, patience=PATIENCE, patience_steps=PATIENCE_STEPS)
    return replace(config, trainer=trainer)
