"""The loop: the same seed gives the same model, the best epoch is kept, and rows do not see their batch-mates."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from app.errors import ConfigError, DataError
from app.models import build
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.training.architectures import ModelConfig
from app.training.evaluation.predict import log_loss, predict
from app.training.loop.epochs import EpochLoop, ProgressUpdate, drop_user_ids, user_id_slot
from app.training.loop.train_step import TrainStep
from app.training.loop.trainer import Trainer
from app.training.loop.trainer_config import TrainerConfig
from app.training.optim.rowwise_rmsprop import RowWiseRmspropConfig
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import ExpandedRows, expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.preprocessing.test_preprocessing_fit import some_data

Prepared = tuple[Preprocessing, ExpandedRows, ExpandedRows]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    data = some_data(600)
    # Something to learn (the hour), and noise to over-fit.
    hour = data.user["hour"].to_numpy()
    noise = np.random.default_rng(0).random(600)
    data = replace(data, labels_N=((hour < 12) ^ (noise < 0.25)).astype(np.float32))
    train, validation = data.take(np.arange(450)), data.take(np.arange(450, 600))
    encoded = encode(train)
    preprocessing = PreprocessingFit().fit(data.schema, encoded)
    return preprocessing, expand(preprocessing, encoded), expand(preprocessing, encode(validation))


def trainer(prepared: Prepared, seed: int = 0, model: str = "deepfm", **options: object) -> Trainer:
    preprocessing = prepared[0]
    config = TrainerConfig(**{"batch_size": 64, "seed": seed, **options})  # type: ignore[arg-type]
    return Trainer(config, ModelConfig(model, seed=seed).build(preprocessing), preprocessing)


def test_the_same_seed_gives_the_same_weights(prepared: Prepared) -> None:
    runs = [trainer(prepared, seed, epochs=3) for seed in (5, 5, 6)]
    for run in runs:
        run.fit(prepared[1], prepared[2])
    first, again, other = (run.model.state_dict() for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["table_RE"], other["table_RE"])


@pytest.mark.parametrize("model", ["deepfm", "lr"])
def test_it_learns(prepared: Prepared, model: str) -> None:
    run = trainer(prepared, model=model, learning_rate=1e-2, table_l2=1e-3)
    run.fit(prepared[1], prepared[2])
    share = float(prepared[1].labels_N.mean())
    constant = torch.full_like(prepared[2].labels_N, float(np.log(share / (1 - share))))
    assert (
        log_loss(predict(run.model, prepared[2]), prepared[2].labels_N)
        < log_loss(constant, prepared[2].labels_N) - 0.03
    )


def test_the_best_epoch_is_restored_and_patience_ends_it(prepared: Prepared) -> None:
    # Made to over-fit: a high rate, no regularisation.
    run = trainer(prepared, learning_rate=2e-2, table_l2=0.0, id_dropout=0.0, patience=3, patience_steps=0, epochs=50)
    fitted = run.fit(prepared[1], prepared[2])
    losses = [epoch.validation_loss for epoch in fitted.epochs]
    assert len(losses) == fitted.best_epoch + 1 + 3 < 50
    assert losses[-1] > min(losses) + 0.01
    assert losses.index(min(losses)) == fitted.best_epoch
    assert log_loss(predict(run.model, prepared[2]), prepared[2].labels_N) == pytest.approx(min(losses), abs=1e-6)
    assert not run.model.training


def test_a_rows_logit_does_not_depend_on_its_batch_mates(prepared: Prepared) -> None:
    run = trainer(prepared, epochs=2)
    run.fit(prepared[1], prepared[2])
    rows = prepared[2]
    whole = predict(run.model, rows)
    alone = torch.cat([predict(run.model, rows.take(slice(n, n + 1))) for n in range(20)])
    torch.testing.assert_close(whole[:20], alone, rtol=1e-5, atol=1e-6)


def test_the_decay_is_the_l2_term_of_the_loss(prepared: Prepared) -> None:
    """Both pull on a row through the same preconditioner, so they balance at the minimum of loss + l2 * sum of squares.

    After 300 steps the excess over that minimum is 0.2 % of what there was to gain; half or twice the weight
    leaves 4 % or more.
    """
    weight, train = 2e-3, prepared[1]
    everything = len(train.labels_N)
    run = trainer(
        prepared,
        model="lr",
        table_l2=weight,
        id_dropout=0.0,
        averaging=0.0,
        epochs=300,
        patience=300,
        batch_size=everything,
        learning_rate=1e-2,
    )
    plain = copy.deepcopy(run.model)
    run.fit(train, train)

    def penalised(model: CtrModel) -> torch.Tensor:
        logits = model.logits(train.rows_NT, train.x_NT, model.fields(train.rows_NT, train.x_NT))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, train.labels_N)
        return loss + weight * model.table_RE.square().sum()

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        torch.nn.utils.vector_to_parameters(torch.from_numpy(weights).float(), plain.parameters())
        loss = penalised(plain)
        slopes = torch.autograd.grad(loss, list(plain.parameters()), allow_unused=True, materialize_grads=True)
        return loss.item(), torch.nn.utils.parameters_to_vector(slopes).double().numpy()

    # torch's own minimiser takes seconds to be imported.
    first = torch.nn.utils.parameters_to_vector(plain.parameters()).detach().double().numpy()
    start = float(penalised(plain).detach())
    least = minimize(loss_and_gradient, first, jac=True, method="L-BFGS-B", options={"maxiter": 300}).fun
    assert float(penalised(run.model).detach()) - least < 0.01 * (start - least)


def test_user_ids_are_dropped_at_the_given_rate(prepared: Prepared) -> None:
    user_id = user_id_slot(prepared[0])
    assert user_id == (0, prepared[0].oov_row("user_id"))
    rows = prepared[1].rows_NT.repeat(20, 1)
    before = rows.clone()
    drop_user_ids(rows, user_id, 0.3, torch.Generator().manual_seed(0))
    changed = (rows != before).float()
    assert changed[:, 1:].sum() == 0
    assert float(changed[:, 0].mean()) == pytest.approx(0.3, abs=0.02)
    assert set(rows[changed[:, 0] > 0, 0].tolist()) == {user_id[1]}


class RecordedStep(TrainStep):
    """Keeps the numbers of every batch that it trained on."""

    batches: list[torch.Tensor]

    def step(
        self,
        rows_BT: torch.Tensor,
        x_OT: torch.Tensor,
        labels_O: torch.Tensor,
        weights_O: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self.batches.append(x_OT)
        return super().step(rows_BT, x_OT, labels_O, weights_O)


@pytest.mark.parametrize(("rows", "size"), [(65, 64), (64, 64), (3, 2), (2, 512), (129, 64)])
def test_every_row_is_trained_on_and_none_alone(prepared: Prepared, rows: int, size: int) -> None:
    train = prepared[1].take(slice(rows))
    untrained = trainer(prepared, batch_size=size)
    train_step = RecordedStep(untrained.model, prepared[0], RowWiseRmspropConfig(1e-3, 0.0, 0.0))
    train_step.batches = []
    EpochLoop(untrained.config, train_step, prepared[0], train, None, None).train_epoch()
    assert sorted(torch.cat(train_step.batches).tolist()) == sorted(train.x_NT.tolist())
    assert min(len(x_OT) for x_OT in train_step.batches) > 1


def test_progress_is_reported(prepared: Prepared) -> None:
    steps: list[ProgressUpdate] = []
    trainer(prepared, epochs=2).fit(prepared[1], prepared[2], steps.append)
    ends = [step for step in steps if step.validation_loss is not None]
    assert [step.epoch for step in ends] == [0, 1]
    assert all(step.done == step.total == 450 for step in ends)
    assert all(one.done <= two.done for one, two in itertools.pairwise(s for s in steps if s.epoch == 0))


def test_too_few_rows_and_a_loss_that_runs_away(prepared: Prepared) -> None:
    with pytest.raises(DataError, match="too few"):
        trainer(prepared).fit(prepared[1].take(slice(1)), prepared[2])
    broken = prepared[1]._replace(x_NT=prepared[1].x_NT * float("nan"))
    with pytest.raises(DataError, match="not finite"):
        trainer(prepared).fit(broken, prepared[2])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_mixed_precision_learns_the_same(prepared: Prepared, device: str, precision: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU here")
    losses = []
    for options in ({}, {"device": device, "precision": precision}):
        run = trainer(prepared, epochs=4, learning_rate=1e-2, **options)
        run.fit(prepared[1], prepared[2])
        assert run.model.table_RE.device.type == "cpu"
        assert all(parameter.dtype == torch.float32 for parameter in run.model.parameters())
        losses.append(log_loss(predict(run.model, prepared[2]), prepared[2].labels_N))
    assert losses[1] == pytest.approx(losses[0], abs=0.01 if device == "cpu" else 0.03)


def test_a_gpu_that_is_not_there_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    for device in ("cuda", "cuda:1", "tpu"):
        with pytest.raises(ConfigError, match=f"device {device}: torch finds no such GPU here; train on the cpu"):
            TrainerConfig(device=device)


@pytest.mark.parametrize("model", ["lr", "deepfm", "fm"])
def test_a_row_of_weight_n_is_n_rows(prepared: Prepared, model: str) -> None:
    """The same steps, losses and weights, in batches of all rows; without batch norm, which does not count rows."""
    preprocessing, train, validation = prepared
    rng = np.random.default_rng(4)
    ends = []
    counts_N, validation_counts_N = (torch.from_numpy(rng.integers(1, 4, len(part.labels_N))) for part in prepared[1:])
    for weighted in (True, False):
        run = trainer(prepared, model=model, batch_size=2000, epochs=4, id_dropout=0.0)
        if model == "deepfm":
            run.model = build("deepfm", preprocessing, dim=4, hidden=(8,), dropout=0.0, batch_norm=False)
        if weighted:  # of any scale
            parts = (
                train._replace(weights_N=counts_N.float() * 20),
                validation._replace(weights_N=validation_counts_N.float()),
            )
        else:
            parts = (
                train.take(torch.repeat_interleave(counts_N)),
                validation.take(torch.repeat_interleave(validation_counts_N)),
            )
        torch.manual_seed(0)
        for parameter in run.model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        fitted = run.fit(*parts)
        ends.append((run.model.state_dict(), [(epoch.train_loss, epoch.validation_loss) for epoch in fitted.epochs]))
    (weights, losses), (expected, expected_losses) = ends
    assert losses == [pytest.approx(pair, rel=1e-5) for pair in expected_losses]
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
