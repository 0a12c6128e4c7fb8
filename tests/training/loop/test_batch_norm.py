"""Batch norms are judged with the statistics of the weights that are judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.models import MODELS
from app.models.preprocessing import Preprocessing
from app.training.architectures import ModelConfig
from app.training.evaluation.predict import log_loss, predict
from app.training.loop.batch_norm import batch_norms, estimate_batch_norms, sample_rows
from app.training.loop.train_step import TrainStep
from app.training.optim.rowwise_rmsprop import RowWiseRmspropConfig
from app.training.preprocessing.expand import ExpandedRows
from tests.training.preprocessing.test_preprocessing_fit import some_rows

Given = tuple[Preprocessing, ExpandedRows]


@pytest.fixture(scope="module")
def given() -> Given:
    return some_rows(500)


@pytest.mark.parametrize("name", MODELS)
def test_statistics_are_those_of_the_norms_inputs(given: Given, name: str) -> None:
    preprocessing, rows = given
    model = ModelConfig(name).build(preprocessing)
    for norm in batch_norms(model):
        assert norm.running_mean is not None
        norm.running_mean.fill_(7.0)  # whatever was there counts for nothing
    momenta = [norm.momentum for norm in batch_norms(model)]
    estimate_batch_norms(model, rows)
    inputs_of: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        inputs_of[module] = inputs[0]

    for norm in batch_norms(model):
        norm.register_forward_pre_hook(keep)
    predict(model, rows)
    for norm in batch_norms(model):
        torch.testing.assert_close(norm.running_mean, inputs_of[norm].mean(0), rtol=1e-3, atol=2e-3)
        torch.testing.assert_close(norm.running_var, inputs_of[norm].var(0), rtol=2e-2, atol=1e-5)
    assert [norm.momentum for norm in batch_norms(model)] == momenta
    assert not any(module.training for module in model.modules())


def test_the_averaged_model_is_right_while_it_is_young(given: Given) -> None:
    """Its loss on the training rows is what training reached.

    Without statistics of its own it is far above that.
    """
    preprocessing, rows = given
    model = ModelConfig("deepfm").build(preprocessing)
    train_step = TrainStep(model, preprocessing, RowWiseRmspropConfig(1e-2, 0.0, 0.9), seed=1)
    generator = np.random.default_rng(0)
    losses = []
    for _ in range(25):
        chosen_B = torch.from_numpy(generator.choice(len(rows.labels_N), 64, replace=False))
        losses.append(float(train_step.step(*rows.take(chosen_B)[:4])) / 64)
    average = train_step.averaged_model()
    stale = log_loss(predict(average, rows), rows.labels_N)
    estimate_batch_norms(average, rows)
    reached = log_loss(predict(average, rows), rows.labels_N)
    train_step.close()
    assert reached < np.mean(losses[-10:])
    assert stale > 1.5 * reached


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (10, 10), (11, 6), (20, 10), (21, 7), (1000, 10)])
def test_a_sample_is_spread_over_all_rows(rows: int, expected: int) -> None:
    train = ExpandedRows(torch.zeros(rows, 2, dtype=torch.int64), torch.zeros(rows, 2), torch.arange(float(rows)))
    sample = sample_rows(train, 10)
    assert len(sample.labels_N) == expected
    assert sample.labels_N[-1] >= rows - -(-rows // 10)
