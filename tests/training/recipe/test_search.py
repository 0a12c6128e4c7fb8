"""The search keeps the best fit, stays inside its budget, and survives fits that diverge."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from app.commands.options import job_config
from app.errors import DataError
from app.training.job_config import Effort, JobConfig
from app.training.loop.epochs import EpochResult
from app.training.loop.trainer import FitResult
from app.training.recipe.search import BUDGET, LARGE_BATCH_COST, RULES, FittedModel, RecipeSearch


def fitted(loss: float, epochs: int) -> FittedModel:
    """Return a fit whose best epoch is its last."""
    results = [EpochResult(loss, loss + (epochs - epoch - 1), 1.0) for epoch in range(epochs)]
    prepared = Mock()
    prepared.rows = {"train": Mock(labels_N=range(40_000))}
    return FittedModel(prepared, Mock(), FitResult(results, epochs - 1, 1.0))


class Fits:
    """Gives each configuration the loss that is named for it, after all the epochs that it may have."""

    def __init__(self, losses: dict[str, float | None], first_epochs: int = 8) -> None:
        self.losses, self.first_epochs = losses, first_epochs
        self.tried: list[tuple[str, JobConfig, int]] = []

    def __call__(self, config: JobConfig, name: str) -> FittedModel:
        epochs = self.first_epochs if name == RULES else config.trainer.epochs
        self.tried.append((name, config, epochs))
        loss = self.losses.get(name, 1.0)
        if loss is None:
            raise DataError("the loss is not finite in epoch 1; lower the learning rate")
        return fitted(loss, epochs)


@pytest.mark.parametrize("effort", [None, "quick"])
def test_without_a_search_there_is_one_fit(effort: Effort | None) -> None:
    fits = Fits({RULES: 0.5})
    result = RecipeSearch(job_config("deepfm", 0, effort=effort), fits).run()
    assert [name for name, *_ in fits.tried] == [RULES] == [result.chosen]


@pytest.mark.parametrize("effort", ["default", "high"])
@pytest.mark.parametrize("model", ["deepfm", "lr", "wide_deep"])
@pytest.mark.parametrize("first_epochs", [1, 4, 8, 30])
def test_the_budget_holds(effort: Effort, model: str, first_epochs: int) -> None:
    fits = Fits({}, first_epochs)
    config = job_config(model, 0, effort=effort)
    RecipeSearch(config, fits).run()
    large = config.trainer.batch_size
    cost = sum(
        epochs * (LARGE_BATCH_COST if tried.trainer.batch_size > large else 1.0) for _, tried, epochs in fits.tried
    )
    assert cost <= BUDGET[effort] * first_epochs + 1e-9
    assert len(fits.tried) > 1 or first_epochs == 1


def test_the_best_is_kept_with_its_configuration() -> None:
    fits = Fits({RULES: 0.5, "steady, stronger penalty": 0.4, "steady": 0.45})
    result = RecipeSearch(job_config("deepfm", 0, effort="default"), fits).run()
    assert result.chosen == "steady, stronger penalty"
    assert result.config in [config for _, config, _ in fits.tried]
    assert result.best.fitted.best_loss == 0.4
    assert result.config.trainer.table_l2 == pytest.approx(5 * fits.tried[0][1].trainer.table_l2)
    assert result.summary()["tried"][0] == {"name": RULES, "validation_loss": 0.5, "epochs": 8}


def test_a_gain_within_the_noise_does_not_move_the_rules() -> None:
    fits = Fits({RULES: 0.5, "steady": 0.49995})
    assert RecipeSearch(job_config("deepfm", 0, effort="default"), fits).run().chosen == RULES


def test_an_alternative_that_diverges_is_passed_over() -> None:
    messages: list[str] = []
    fits = Fits({RULES: 0.5, "steady, stronger penalty": None, "steady": 0.4})
    result = RecipeSearch(job_config("deepfm", 0, effort="default"), fits, messages.append).run()
    assert result.chosen == "steady"
    assert any("not finite" in message for message in messages)
    with pytest.raises(DataError, match="not finite"):
        RecipeSearch(job_config("deepfm", 0, effort="default"), Fits({RULES: None}))


def test_given_epochs_bound_every_fit() -> None:
    fits = Fits({})
    RecipeSearch(job_config("deepfm", 0, effort="high", epochs=3), fits).run()
    assert all(config.trainer.epochs <= 3 for _, config, _ in fits.tried)
