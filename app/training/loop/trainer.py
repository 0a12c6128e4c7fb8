"""Train a model in a new order of rows each epoch, stop early on validation log loss, and keep the best epoch.

These keep the model from over-fitting, the most effective first: an L2 penalty on the whole table, standardised
numerics, averaged weights, out-of-vocabulary dropout of the user's id, early stopping.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from app.errors import DataError
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.loop.checkpoint import Checkpoint
from app.training.loop.epochs import EpochLoop, EpochResult, ProgressUpdate
from app.training.loop.train_step import TrainStep
from app.training.loop.trainer_config import TrainerConfig
from app.training.optim.rowwise_rmsprop import RowWiseRmspropConfig
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.positions import position_rows


@dataclass(frozen=True)
class FitResult:
    """Holds the results of `Trainer.fit` other than the model's weights."""

    epochs: list[EpochResult]
    best_epoch: int
    """The number of the epoch whose weights were kept, from 0."""
    samples_per_second: float
    """Training rows a second, validation not counted."""

    @property
    def best_loss(self) -> float:
        """Return the validation log loss of the best epoch, in nats; infinity where there was no validation part."""
        loss = self.epochs[self.best_epoch].validation_loss
        return math.inf if loss is None else loss


@dataclass
class Trainer:
    """Trains one model in place."""

    config: TrainerConfig
    model: CtrModel
    preprocessing: Preprocessing

    def fit(
        self,
        train: ExpandedRows,
        validation: ExpandedRows | None,
        on_progress: Callable[[ProgressUpdate], None] | None = None,
        *,
        warm: bool = False,
        checkpoint: Checkpoint | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> FitResult:
        """Train until the validation log loss stops falling; the model ends with the best epoch's averaged weights.

        Args:
            train, validation: all rows, in every process; they may be memory-mapped, as only batches are copied.
                Without validation rows all `epochs` are trained, and the last one's weights stay.
            on_progress: called every few batches and at the end of each epoch.
            warm: whether the model has learned before; if not, its bias starts at the training rows' log odds.
            checkpoint: where to keep the run's state, and whether to resume from it. The file stays, so that a job of
                several fits that is killed in a later one resumes behind this one.
            group: the processes that train together.

        Raises:
            DataError: there are too few training rows, the loss is not finite, or the checkpoint is of another run.
        """
        config, model = self.config, self.model
        rows = len(train.labels_N)
        if rows < 2 * group.size:
            raise DataError(f"{rows} training rows are too few to train on")
        if train.weights_N is not None:  # of mean 1, so that a step and the penalty mean what they do without weights
            train = train._replace(weights_N=train.weights_N / (train.total_weight / rows))
        if not warm:
            clicks_N = train.labels_N if train.weights_N is None else train.labels_N * train.weights_N
            share = float(clicks_N.mean().clamp(1e-4, 1 - 1e-4))
            with torch.no_grad():
                model.bias.fill_(math.log(share / (1 - share)))
        train_step = TrainStep(
            model,
            self.preprocessing,
            RowWiseRmspropConfig(config.learning_rate, config.table_l2, config.averaging),
            device=config.device,
            bfloat16=config.precision == "bfloat16",
            group=group,
            seed=config.seed,
            offset_rows=position_rows(self.preprocessing, train.rows_NT) if model.has_first_order else None,
        )
        try:
            loop = EpochLoop(config, train_step, self.preprocessing, train, checkpoint, on_progress)
            while loop.state.epoch < config.epochs and (validation is None or not loop.is_exhausted):
                loop.train_epoch()
                loop.validate(validation)
                loop.save_checkpoint()
        finally:
            train_step.close()
        with torch.no_grad():
            model.load_state_dict({**model.state_dict(), **loop.best})
        epochs = loop.state.epochs
        return FitResult(epochs, loop.state.best_epoch, rows * len(epochs) / max(sum(e.seconds for e in epochs), 1e-9))
