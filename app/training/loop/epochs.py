"""Loop over epochs and batches: train, validate, and write checkpoints from which the loop resumes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import xxhash
from torch import Tensor

from app.errors import DataError
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.training.evaluation.predict import log_loss_sum, predict
from app.training.loop.batch_norm import estimate_batch_norms, sample_rows
from app.training.loop.checkpoint import Checkpoint
from app.training.loop.train_step import TrainStep
from app.training.loop.trainer_config import TrainerConfig
from app.training.preprocessing.expand import ExpandedRows

MIN_IMPROVEMENT = 1e-5
BATCHES_PER_UPDATE = 16
"""Number of batches between two progress updates."""


@dataclass(frozen=True)
class ProgressUpdate:
    """Tells a progress bar how far training is."""

    epoch: int
    done: int
    """Number of this epoch's rows that have been trained on."""
    total: int
    """Number of rows of the epoch."""
    validation_loss: float | None = None
    """Mean log loss in nats; None until the end of the epoch."""
    best: bool = False
    """Whether this epoch is the best so far; known at its end."""
    at_most: int | None = None
    """Number of epochs after which training ends in any case, where that is known."""


@dataclass(frozen=True)
class EpochResult:
    """Holds the mean log losses of an epoch, in nats, and the seconds that its training steps took."""

    train_loss: float
    validation_loss: float | None
    """None where there was no validation part."""
    seconds: float


@dataclass
class LoopState:
    """Records how far the loop is; resuming needs this and the state of the train step."""

    epoch: int = 0
    batch: int = 0
    """Number of this epoch's batches that have been trained on."""
    seconds: float = 0.0
    """Seconds that this epoch's steps have taken so far."""
    loss: float = 0.0
    """Sum of the losses of this process's rows of this epoch so far."""
    best: float = math.inf
    """The lowest validation loss so far."""
    best_epoch: int = 0
    epochs: list[EpochResult] = field(default_factory=list)


class EpochLoop:
    """Trains for one epoch after the other, and keeps the weights of the best."""

    def __init__(
        self,
        config: TrainerConfig,
        train_step: TrainStep,
        preprocessing: Preprocessing,
        train: ExpandedRows,
        checkpoint: Checkpoint | None,
        on_progress: Callable[[ProgressUpdate], None] | None,
    ) -> None:
        """Resume where the checkpoint says so. Raises DataError if the checkpoint is damaged or of another run."""
        self._config, self._train_step, self._train, self._on_progress = config, train_step, train, on_progress
        self._checkpoint = checkpoint
        self._user_id = user_id_slot(preprocessing)
        self._batch_norm_rows = sample_rows(train)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._shuffle = self._generator.get_state()
        self._identity = _identity(config, train_step, preprocessing, train) if checkpoint else {}
        self.state = LoopState()
        self.best: dict[str, Tensor] = {}
        """The state dict of the averaged model after its best epoch, without the vocabulary."""
        if checkpoint:
            saved = train_step.group.run_all_or_raise(lambda: checkpoint.read(self._identity))
            if len(set(train_step.group.all_gather(saved is None))) > 1:
                raise DataError(f"{checkpoint.path} is not on all machines: share its folder, or copy it to each")
            if saved:
                self._restore(saved)

    def train_epoch(self) -> None:
        """Train on the batches that are left of the current epoch."""
        train, state, group = self._train, self.state, self._train_step.group
        rows, size, device = len(train.labels_N), self._config.batch_size, self._config.device
        order_N, starts = self._order(), self._batch_starts
        losses = torch.zeros((), device=device)
        started = time.perf_counter()
        while state.batch < len(starts):
            start = starts[state.batch]
            state.batch += 1
            chosen_B = order_N[start : start + size] if state.batch < len(starts) else order_N[start:]
            part_O = chosen_B[group.own_slice(len(chosen_B))]
            rows_BT = train.rows_NT.index_select(0, chosen_B)
            drop_user_ids(rows_BT, self._user_id, self._config.id_dropout, self._generator)
            x_OT, labels_O = train.x_NT.index_select(0, part_O), train.labels_N.index_select(0, part_O)
            weights_O = None if train.weights_N is None else train.weights_N.index_select(0, part_O).to(device)
            losses += self._train_step.step(rows_BT.to(device), x_OT.to(device), labels_O.to(device), weights_O)
            if self._on_progress and (state.batch - 1) % BATCHES_PER_UPDATE == 0:
                self._on_progress(ProgressUpdate(state.epoch, start + len(chosen_B), rows))
            # Several processes could not agree on when one is due; theirs is written at the end of an epoch.
            if self._checkpoint and group.size == 1 and state.batch < len(starts) and self._checkpoint.due:
                state.seconds, state.loss = state.seconds + time.perf_counter() - started, state.loss + float(losses)
                losses.zero_()
                self.save_checkpoint()
                started = time.perf_counter()
        state.loss += float(losses)
        state.seconds += time.perf_counter() - started

    @property
    def _batch_starts(self) -> list[int]:
        rows = len(self._train.labels_N)
        least_rows = 2 * self._train_step.group.size
        # Batch norm cannot take one row: a last batch with less than two for each process joins the one before it.
        return [start for start in range(0, rows, self._config.batch_size) if start == 0 or rows - start >= least_rows]

    @property
    def is_exhausted(self) -> bool:
        """Tell whether enough epochs and enough steps have passed since the best epoch, or since the beginning."""
        state, config = self.state, self._config
        waited = state.epoch - state.best_epoch
        return waited > config.patience and waited * len(self._batch_starts) > config.patience_steps

    def validate(self, validation: ExpandedRows | None) -> None:
        """Measure the averaged model, keep it if it is the best so far, and move on to the next epoch.

        Args:
            validation: None keeps the model of every epoch, so that the last one stays.

        Raises:
            DataError: the training or validation loss is not finite.
        """
        state, group, rows = self.state, self._train_step.group, len(self._train.labels_N)
        average = self._train_step.averaged_model()
        if validation is not None or state.epoch + 1 == self._config.epochs:
            estimate_batch_norms(average, self._batch_norm_rows)
        sums = torch.tensor([state.loss, self._loss_sum(average, validation)]).double().to(self._config.device)
        group.sum_in_place(sums)
        train_loss = float(sums[0]) / rows
        validation_loss = float(sums[1]) / validation.total_weight if validation else None
        if not math.isfinite(train_loss) or not math.isfinite(validation_loss or 0.0):
            raise DataError(f"the loss is not finite in epoch {state.epoch + 1}; lower the learning rate")
        improved = validation_loss is None or validation_loss < state.best - MIN_IMPROVEMENT
        if improved:
            state.best, state.best_epoch = validation_loss or math.inf, state.epoch
            weights = average.state_dict()
            self.best = {name: tensor.clone() for name, tensor in weights.items() if name != "vocabulary_V"}
        state.epochs.append(EpochResult(train_loss, validation_loss, state.seconds))
        if self._on_progress:
            self._on_progress(ProgressUpdate(state.epoch, rows, rows, validation_loss, improved, self._config.epochs))
        state.epoch, state.batch, state.seconds, state.loss = state.epoch + 1, 0, 0.0, 0.0

    def _loss_sum(self, model: CtrModel, rows: ExpandedRows | None) -> float:
        """Return the summed log loss of this process's share of the rows; 0 if it has none."""
        if rows is None:
            return 0.0
        own_rows = self._train_step.group.own_slice(len(rows.labels_N))
        part = rows.take(own_rows)
        return log_loss_sum(predict(model, part), part.labels_N, part.weights_N) if len(part.labels_N) else 0.0

    def save_checkpoint(self) -> None:
        """Write one checkpoint for all processes, whose weights are the same; a failure is said, and ends nothing."""
        if not self._checkpoint:
            return
        group = self._train_step.group
        dropout = group.all_gather(self._train_step.random_state())
        if not group.is_first:
            return
        epochs = [list(asdict(epoch).values()) for epoch in self.state.epochs]
        saved = {
            "position": {**asdict(self.state), "epochs": epochs},
            "engine": self._train_step.state(),
            "best": self.best,
            "shuffle": self._shuffle,
            "generator": self._generator.get_state(),
            "dropout": dropout,
        }
        self._checkpoint.try_write(self._identity, saved)

    def _restore(self, saved: dict[str, Any]) -> None:
        position = saved["position"]
        self.state = LoopState(**{**position, "epochs": [EpochResult(*epoch) for epoch in position["epochs"]]})
        self._train_step.load(saved["engine"])
        self._train_step.set_random_state(saved["dropout"][self._train_step.group.rank])
        self.best, self._shuffle = saved["best"], saved["shuffle"]
        self._generator.set_state(saved["generator"])

    def _order(self) -> Tensor:
        """Draw the epoch's order of rows; in the middle of an epoch, draw the order that it began with again."""
        rows = len(self._train.labels_N)
        if not self.state.batch:
            self._shuffle = self._generator.get_state()
            return torch.randperm(rows, generator=self._generator)
        return torch.randperm(rows, generator=torch.Generator().set_state(self._shuffle))


def drop_user_ids(rows_BT: Tensor, user_id: tuple[int, int] | None, share: float, generator: torch.Generator) -> None:
    """Replace this share of the user ids, in place, by the out-of-vocabulary row.

    Args:
        user_id: the id's slot and out-of-vocabulary row (`user_id_slot`); None drops nothing.
    """
    if user_id is None or share <= 0:
        return
    slot, oov_row = user_id
    drop_B = torch.rand(len(rows_BT), generator=generator) < share
    rows_BT[:, slot].masked_fill_(drop_B, oov_row)


def user_id_slot(preprocessing: Preprocessing) -> tuple[int, int] | None:
    """Return the user id's slot among T and its out-of-vocabulary row, or None if the schema has no such field."""
    layout = preprocessing.schema.layout("user")
    if layout.id_field is None or layout.id_slot is None:
        return None
    return layout.id_slot, preprocessing.oov_row(layout.id_field.name)


def _identity(
    config: TrainerConfig, train_step: TrainStep, preprocessing: Preprocessing, train: ExpandedRows
) -> dict[str, Any]:
    """Describe what a run and its continuation must have in common."""
    digest = xxhash.xxh3_64(train.labels_N.numpy().tobytes())
    digest.update(train.rows_NT[:: max(1, len(train.rows_NT) // 1000)].numpy().tobytes())
    if train.weights_N is not None:
        digest.update(train.weights_N.numpy().tobytes())
    return {
        **{key: value for key, value in asdict(config).items() if key != "epochs"},
        "model": train_step.model.name,
        "weights": sum(tensor.numel() for tensor in train_step.state().values()),
        "training data": f"{len(train.labels_N)} rows, {preprocessing.rows} table rows, {digest.hexdigest()}",
        "processes": train_step.group.size,
    }
