"""The search keeps the best fit, stays inside its budget, and survives fits that diverge."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import pytest

from app.commands.options import job_config
from app.errors import DataError
from app.training.job_config import Effort, JobConfig
from app.training.loop.epochs import EpochResult
from app.training.loop.trainer import FitResult
from app.training.recipe.facts import DataFacts
from app.training.recipe.rules import PAIRS
from app.training.recipe.search import (
    BUDGET,
    FEW_ROWS,
    LARGE_BATCH_COST,
    RULES,
    STATISTICS_OF_A_CLASS,
    STATISTICS_ROWS,
    FittedModel,
    RecipeSearch,
)

MANY_ROWS = 4 * FEW_ROWS


class Fits:
    """Gives each configuration the loss that is named for it, after all the epochs that it may have."""

    def __init__(self, losses: dict[str, float | None], first_epochs: int = 8) -> None:
        self.losses, self.first_epochs = losses, first_epochs
        self.tried: list[tuple[str, JobConfig, int]] = []

    def __call__(self, config: JobConfig, name: str) -> FittedModel:
        epochs = self.first_epochs if name in (RULES, PAIRS) else config.trainer.epochs
        self.tried.append((name, config, epochs))
        loss = self.losses.get(name, 1.0)
        if loss is None:
            raise DataError("the loss is not finite in epoch 1; lower the learning rate")
        results = [EpochResult(loss, loss + (epochs - epoch - 1), 1.0) for epoch in range(epochs)]
        return FittedModel(Mock(), Mock(), FitResult(results, epochs - 1, 1.0))

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.tried]


def facts(rows: int, rarer_class: int | None = None) -> DataFacts:
    return DataFacts(rows, rows // 3 if rarer_class is None else rarer_class, None)


def search(fits: Fits, effort: Effort | None = "default", model: str = "deepfm", rows: int = MANY_ROWS) -> RecipeSearch:
    return RecipeSearch(job_config(model, 0, effort=effort), facts(rows), fits)


@pytest.mark.parametrize("effort", [None, "quick"])
def test_without_a_search_there_is_one_fit(effort: Effort | None) -> None:
    fits = Fits({RULES: 0.5})
    assert search(fits, effort).run().chosen == RULES
    assert fits.names == [RULES]


@pytest.mark.parametrize("model", ["deepfm", "lr", "wide_deep"])
@pytest.mark.parametrize("first_epochs", [1, 4, 8, 30])
def test_the_budget_holds(model: str, first_epochs: int) -> None:
    fits = Fits({}, first_epochs)
    config = job_config(model, 0, effort="default")
    RecipeSearch(config, facts(MANY_ROWS), fits).run()
    whole = [fit for fit in fits.tried if "at first" not in fit[0]]
    large = config.trainer.batch_size
    cost = sum(epochs * (LARGE_BATCH_COST if tried.trainer.batch_size > large else 1.0) for _, tried, epochs in whole)
    assert cost <= BUDGET * first_epochs + 1e-9
    assert len(whole) > 1 or first_epochs == 1
    assert all(epochs == 1 for name, _, epochs in fits.tried if "at first" in name), "one epoch has enough steps"


def test_the_best_is_kept_with_its_configuration() -> None:
    fits = Fits({RULES: 0.5, "steady, stronger penalty": 0.4, "steady": 0.45})
    result = search(fits).run()
    assert result.chosen == "steady, stronger penalty"
    assert result.config in [config for _, config, _ in fits.tried]
    assert result.best.fitted.best_loss == 0.4
    rules = next(config for name, config, _ in fits.tried if name == RULES)
    assert result.config.trainer.table_l2 == pytest.approx(5 * rules.trainer.table_l2)
    assert {"name": RULES, "validation_loss": 0.5, "epochs": 8} in result.summary()["tried"]
    assert [tried.name for tried in result.tried] == fits.names


def test_a_gain_within_the_noise_does_not_move_the_rules() -> None:
    assert search(Fits({RULES: 0.5, "steady": 0.49995})).run().chosen == RULES


@pytest.mark.parametrize(("loss", "chosen"), [(0.485, PAIRS), (0.495, RULES), (None, RULES)])
def test_target_statistics_are_taken_where_they_gain_at_once(loss: float | None, chosen: str) -> None:
    fits = Fits({f"{RULES}, at first": 0.5, f"{PAIRS}, at first": loss, RULES: 0.3, PAIRS: 0.3})
    result = search(fits).run()
    assert result.chosen == chosen
    assert (result.config.preparation.target_statistics == "pairs") == (chosen == PAIRS)
    assert (RULES in fits.names) == (chosen == RULES)


@pytest.mark.parametrize(("loss", "chosen"), [(0.49, PAIRS), (0.497, RULES)])
def test_few_rows_try_everything_in_full(loss: float, chosen: str) -> None:
    fits = Fits({RULES: 0.5, PAIRS: loss})
    result = search(fits, rows=FEW_ROWS - 1).run()
    assert result.chosen == chosen
    assert not any("at first" in name for name in fits.names)
    assert {"steady", "steady, stronger penalty", "target statistics of fields"} <= set(fits.names)


def test_rows_that_are_mapped_try_no_target_statistics() -> None:
    fits = Fits({RULES: 0.5, PAIRS: 0.1})
    for effort in ("default", "high"):
        RecipeSearch(job_config("deepfm", 0, effort=effort), replace(facts(FEW_ROWS), rows_are_mapped=True), fits).run()
    assert not any("statistics" in name for name in fits.names)


def test_too_few_rows_try_no_target_statistics() -> None:
    fits = Fits({RULES: 0.5, PAIRS: 0.1})
    assert search(fits, rows=STATISTICS_ROWS - 1).run().chosen == RULES
    assert not any("statistics" in name for name in fits.names)


def test_few_clicks_and_towers_try_no_target_statistics() -> None:
    few, towers = Fits({}), Fits({})
    few_clicks = facts(MANY_ROWS, STATISTICS_OF_A_CLASS - 1)
    RecipeSearch(job_config("deepfm", 0, effort="high"), few_clicks, few).run()
    search(towers, "high", "neural_cf_towers").run()
    assert not any("statistics" in name for name in (*few.names, *towers.names))


def test_an_alternative_that_diverges_is_passed_over() -> None:
    messages: list[str] = []
    fits = Fits({RULES: 0.5, "steady, stronger penalty": None, "steady": 0.4})
    config = job_config("deepfm", 0, effort="default")
    assert RecipeSearch(config, facts(MANY_ROWS), fits, messages.append).run().chosen == "steady"
    assert any("not finite" in message for message in messages)
    with pytest.raises(DataError, match="not finite"):
        search(Fits({RULES: None})).run()


@pytest.mark.parametrize("rows", [FEW_ROWS - 1, MANY_ROWS])
def test_given_options_bound_every_fit(rows: int) -> None:
    fits = Fits({})
    RecipeSearch(job_config("deepfm", 0, effort="high", epochs=3, target_statistics="none"), facts(rows), fits).run()
    assert all(config.trainer.epochs <= 3 for _, config, _ in fits.tried)
    assert all(config.preparation.target_statistics == "none" for _, config, _ in fits.tried)
