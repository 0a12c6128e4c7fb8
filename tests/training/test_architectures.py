"""A configuration says what a model will be made with, and the command line refuses what a model does not have."""

from __future__ import annotations

import pytest

from app.commands.options import job_config
from app.errors import ConfigError
from app.models import MODELS
from app.training.architectures import FAMILIES, MAX_TABLE_L2, ModelConfig
from tests.factories import fitted


@pytest.mark.parametrize("name", MODELS)
def test_what_is_not_said_is_the_models_own_default(name: str) -> None:
    config, options = ModelConfig(name), MODELS[name].options()
    assert (config.dim, config.hidden, config.dropout) == tuple(options.get(o) for o in ("dim", "hidden", "dropout"))
    model, plain = config.build(fitted()), MODELS[name](fitted())
    assert {n: t.shape for n, t in model.state_dict().items()} == {n: t.shape for n, t in plain.state_dict().items()}


def test_what_is_said_is_what_is_built() -> None:
    model = ModelConfig("deepfm", dim=3, hidden=(5, 4), dropout=0.0).build(fitted())
    assert model.get_parameter("table_RE").shape[1] == 4
    assert model.get_parameter("deep.output.weight").shape == (1, 4)


@pytest.mark.parametrize(("option", "value"), [("dim", 0), ("hidden", ()), ("hidden", (8, 0))])
def test_sizes_below_one_are_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"--{option} must be"):
        ModelConfig("deepfm", **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("model", "option", "value"), [("fm", "hidden", "8,8"), ("lr", "dim", 4)])
def test_the_command_line_refuses_options_a_model_lacks(model: str, option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"--{option}: {model} has none; leave it out"):
        job_config(model, 0, "auto", **{option: value})


def test_a_models_own_penalty_and_rate_are_what_the_command_line_trains_with() -> None:
    assert set(FAMILIES) <= set(MODELS)
    for name in MODELS:
        trainer, model = job_config(name, 0, "auto").trainer, ModelConfig(name)
        assert trainer.table_l2 == model.table_l2()
        assert trainer.learning_rate == model.family.learning_rate
    assert job_config("fm", 0, "auto", l2=0.5, learning_rate=0.25).trainer.table_l2 == 0.5
    assert job_config("fm", 0, "auto", l2=0.5, learning_rate=0.25).trainer.learning_rate == 0.25


def test_a_penalty_is_the_same_prior_for_any_number_of_rows() -> None:
    model = ModelConfig("deepfm")
    assert model.table_l2(100_000) == pytest.approx(2 * model.table_l2(200_000))
    assert model.table_l2(1) == model.table_l2(0) == MAX_TABLE_L2
