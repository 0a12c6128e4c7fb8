"""Trains a model: whole batches in a new order each epoch, early stopping on validation log loss, the best epoch kept.

What keeps it from over-fitting, in the order of what each is worth: an L2 penalty on the whole table, standardised
numerics, averaged weights, out-of-vocabulary dropout of the user's id, early stopping.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from app.errors import DataError
from app.models.base import CtrModel
from app.models.side_input import Preprocessing
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.loop.checkpoint import Checkpoint
from app.training.loop.epochs import EpochLoop, EpochResult, ProgressUpdate
from app.training.loop.train_step import TrainStep
from app.training.loop.trainer_config import TrainerConfig
from app.training.optim.rowwise_rmsprop import RowWiseRmspropConfig
from app.training.preprocessing.expand import ExpandedRows


@dataclass(frozen=True)
class FitResult:
    epochs: list[EpochResult]
    best_epoch: int
    """Counted from 0."""
    samples_per_second: float
    """Of the training steps alone."""


@dataclass
class Trainer:
    """Trains one model in place."""

    config: TrainerConfig
    model: CtrModel
    preprocessing: Preprocessing

    def fit(
        self,
        train: ExpandedRows,
        validation: ExpandedRows,
        report: Callable[[ProgressUpdate], None] | None = None,
        *,
        warm: bool = False,
        checkpoint: Checkpoint | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> FitResult:
        """Train until the validation log loss stops falling; the model ends with the best epoch's averaged weights.

        Args:
            train, validation: all rows, in every process; they may be memory-mapped, only batches are copied.
            warm: the model has learned before; else its bias begins at the training rows' log odds.
            checkpoint: where to keep the run's state, and whether to go on from it; deleted at the end.
            group: this process among those that train together.

        Raises:
            DataError: too few training rows, the loss is not finite, or the checkpoint is of another run.
        """
        config, model = self.config, self.model
        rows = len(train.labels_N)
        if rows < 2 * group.size:
            raise DataError(f"{rows} training rows are too few to train on")
        if not warm:
            share = float(train.labels_N.mean().clamp(1e-4, 1 - 1e-4))
            with torch.no_grad():
                model.bias.fill_(math.log(share / (1 - share)))
        engine = TrainStep(
            model,
            self.preprocessing,
            RowWiseRmspropConfig(config.learning_rate, config.table_l2, config.averaging),
            device=config.device,
            bfloat16=config.precision == "bfloat16",
            group=group,
            seed=config.seed,
        )
        try:
            run = EpochLoop(config, engine, self.preprocessing, train, checkpoint, report)
            while run.at.epoch < config.epochs and run.at.epoch - run.at.best_epoch <= config.patience:
                run.epoch()
                run.judge(validation)
                run.save()
        finally:
            engine.close()
        with torch.no_grad():
            model.load_state_dict({**model.state_dict(), **run.best})
        if checkpoint and group.is_first:
            checkpoint.done()
        epochs = run.at.epochs
        return FitResult(epochs, run.at.best_epoch, rows * len(epochs) / max(sum(e.seconds for e in epochs), 1e-9))
