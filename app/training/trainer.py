"""Trains a model: whole batches in a new order each epoch, early stopping on validation log loss, the best epoch kept.

What keeps it from over-fitting, in the order of what each is worth: an L2 penalty on the whole table, standardised
numerics, averaged weights, out-of-vocabulary dropout of the user's id, early stopping.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from app.errors import ConfigError, DataError
from app.models.contract import CtrModel
from app.models.inputs import Preprocessing
from app.training.architectures import TABLE_L2
from app.training.checkpoint import Checkpoint
from app.training.distributed import World
from app.training.engine import Engine
from app.training.prepare import Rows
from app.training.run import Epoch, Run, Step
from app.training.table_steps import TableConfig


@dataclass(frozen=True)
class Fitted:
    epochs: list[Epoch]
    best_epoch: int
    """Counted from 0."""
    samples_per_second: float
    """Of the training steps alone."""


@dataclass(frozen=True)
class TrainerConfig:
    batch_size: int = 512
    """Rows a step, of all processes together."""
    epochs: int = 30
    """At most; early stopping usually ends it before."""
    learning_rate: float = 2e-3
    patience: int = 3
    """Epochs without a better validation log loss before it stops."""
    table_l2: float = TABLE_L2
    """Factor of the sum of squares of the whole table, in a loss that is a mean over the batch's rows."""
    id_dropout: float = 0.2
    """Share of rows whose user id is replaced by out-of-vocabulary, so that the model learns what to do without."""
    averaging: float = 0.99
    """Decay of the moving average of weights, which is what gets evaluated and kept; 0 keeps the last weights."""
    seed: int = 0
    device: str = "cpu"
    """Or cuda, cuda:1."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass; bfloat16 pays off on a GPU. Weights are float32."""

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if self.device != "cpu" and not (self.device.split(":")[0] == "cuda" and torch.cuda.is_available()):
            raise ConfigError(f"device {self.device}: torch finds no such GPU here; train on the cpu")

    def build(self, model: CtrModel, preprocessing: Preprocessing) -> Trainer:
        return Trainer(self, model, preprocessing)


@dataclass
class Trainer:
    """Trains one model in place."""

    config: TrainerConfig
    model: CtrModel
    preprocessing: Preprocessing

    def fit(
        self,
        train: Rows,
        validation: Rows,
        report: Callable[[Step], None] | None = None,
        *,
        warm: bool = False,
        checkpoint: Checkpoint | None = None,
        world: World | None = None,
    ) -> Fitted:
        """Train until the validation log loss stops falling; the model ends with the best epoch's averaged weights.

        Args:
            train, validation: all rows, in every process; they may be memory-mapped, only batches are copied.
            warm: the model has learned before; else its bias begins at the training rows' log odds.
            checkpoint: where to keep the run's state, and whether to go on from it; deleted at the end.
            world: this process among those that train together.

        Raises:
            DataError: too few training rows, the loss is not finite, or the checkpoint is of another run.
        """
        config, model, world = self.config, self.model, world or World()
        rows = len(train.labels_N)
        if rows < 2 * world.size:
            raise DataError(f"{rows} training rows are too few to train on")
        if not warm:
            share = float(train.labels_N.mean().clamp(1e-4, 1 - 1e-4))
            with torch.no_grad():
                model.bias.fill_(math.log(share / (1 - share)))
        engine = Engine(
            model,
            self.preprocessing,
            TableConfig(config.learning_rate, config.table_l2, config.averaging),
            device=config.device,
            bfloat16=config.precision == "bfloat16",
            world=world,
            seed=config.seed,
        )
        try:
            run = Run(config, engine, self.preprocessing, train, checkpoint, report)
            while run.at.epoch < config.epochs and run.at.epoch - run.at.best_epoch <= config.patience:
                run.epoch()
                run.judge(validation)
                run.save()
        finally:
            engine.close()
        with torch.no_grad():
            model.load_state_dict({**model.state_dict(), **run.best})
        if checkpoint and world.first:
            checkpoint.done()
        epochs = run.at.epochs
        return Fitted(epochs, run.at.best_epoch, rows * len(epochs) / max(sum(e.seconds for e in epochs), 1e-9))
