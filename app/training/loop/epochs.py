"""A training run between its first and its last epoch: batches, judgements, and all of it on disk in between."""

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
from app.models.side_input import Preprocessing
from app.training.evaluation.predict import log_loss, predict
from app.training.loop.checkpoint import Checkpoint
from app.training.loop.train_step import TrainStep
from app.training.loop.trainer_config import TrainerConfig
from app.training.preprocessing.expand import ExpandedRows

MIN_IMPROVEMENT = 1e-5
REPORT_EVERY = 16
"""Batches between two reports of progress."""


@dataclass(frozen=True)
class ProgressUpdate:
    """Where training is, for a progress bar."""

    epoch: int
    done: int
    total: int
    """Rows done and rows in all, of this epoch."""
    validation_loss: float | None = None
    """Set once, at the end of the epoch."""
    best: bool = False


@dataclass(frozen=True)
class EpochResult:
    train_loss: float
    validation_loss: float
    seconds: float
    """Of the training steps alone."""


@dataclass
class LoopState:
    """Between which two steps a run is; with the engine's state all that it takes to go on."""

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    """Of this epoch's steps so far."""
    loss: float = 0.0
    """Sum over this epoch's rows so far, of this process."""
    best: float = math.inf
    best_epoch: int = 0
    epochs: list[EpochResult] = field(default_factory=list)


class EpochLoop:
    """Drives the engine over the training rows."""

    def __init__(
        self,
        config: TrainerConfig,
        engine: TrainStep,
        preprocessing: Preprocessing,
        train: ExpandedRows,
        checkpoint: Checkpoint | None,
        report: Callable[[ProgressUpdate], None] | None,
    ) -> None:
        self._config, self._engine, self._train, self._report = config, engine, train, report
        self._checkpoint = checkpoint
        self._id_place = user_id_place(preprocessing)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._shuffle = self._generator.get_state()
        self._identity = _identity(config, engine, preprocessing, train) if checkpoint else {}
        self.at = LoopState()
        self.best: dict[str, Tensor] = {}
        """The model's state after its best epoch, without the vocabulary."""
        if checkpoint:
            found = engine.group.run_all_or_raise(lambda: checkpoint.read(self._identity))
            if len(set(engine.group.all_gather(found is None))) > 1:
                raise DataError(f"{checkpoint.path} is not on all machines: share its folder, or copy it to each")
            if found:
                self._restore(found)

    def epoch(self) -> None:
        """Train on what is left of an epoch."""
        engine, train, at, group = self._engine, self._train, self.at, self._engine.group
        rows, size, device = len(train.labels_N), self._config.batch_size, self._config.device
        order_N = self._order()
        # Batch norm cannot take one row: a last batch with less than two for each process joins the one before it.
        starts = [start for start in range(0, rows, size) if start == 0 or rows - start >= 2 * group.size]
        losses = torch.zeros((), device=device)
        started = time.perf_counter()
        while at.batch < len(starts):
            start = starts[at.batch]
            at.batch += 1
            chosen_B = order_N[start : start + size] if at.batch < len(starts) else order_N[start:]
            own_O = chosen_B[group.own_slice(len(chosen_B))]
            rows_BT = train.rows_NT.index_select(0, chosen_B)
            self._forget_ids(rows_BT)
            x_OT, labels_O = train.x_NT.index_select(0, own_O), train.labels_N.index_select(0, own_O)
            losses += engine.step(rows_BT.to(device), x_OT.to(device), labels_O.to(device))
            if self._report and (at.batch - 1) % REPORT_EVERY == 0:
                self._report(ProgressUpdate(at.epoch, start + len(chosen_B), rows))
            # Several processes could not agree on when it is due; theirs is written at the end of an epoch.
            if self._checkpoint and group.size == 1 and at.batch < len(starts) and self._checkpoint.due:
                at.seconds, at.loss = at.seconds + time.perf_counter() - started, at.loss + float(losses)
                losses.zero_()
                self.save()
                started = time.perf_counter()
        at.loss += float(losses)
        at.seconds += time.perf_counter() - started

    def judge(self, validation: ExpandedRows) -> None:
        """End the epoch, and keep the model if it is the best so far.

        Raises:
            DataError: the loss is not finite.
        """
        at, group, rows = self.at, self._engine.group, len(self._train.labels_N)
        average, own = self._engine.averaged(), group.own_slice(len(validation.labels_N))
        part = ExpandedRows(*(tensor[own] for tensor in validation))
        count = len(part.labels_N)
        sums = torch.tensor(
            [at.loss, log_loss(predict(average, part), part.labels_N) * count if count else 0.0]
        ).double()
        sums = sums.to(self._config.device)
        group.sum_in_place(sums)
        train_loss, validation_loss = float(sums[0]) / rows, float(sums[1]) / len(validation.labels_N)
        if not math.isfinite(train_loss) or not math.isfinite(validation_loss):
            raise DataError(f"the loss is not finite in epoch {at.epoch + 1}; lower the learning rate")
        improved = validation_loss < at.best - MIN_IMPROVEMENT
        if improved:
            at.best, at.best_epoch = validation_loss, at.epoch
            state = average.state_dict()
            self.best = {name: tensor.clone() for name, tensor in state.items() if name != "vocabulary_V"}
        at.epochs.append(EpochResult(train_loss, validation_loss, at.seconds))
        if self._report:
            self._report(ProgressUpdate(at.epoch, rows, rows, validation_loss, improved))
        at.epoch, at.batch, at.seconds, at.loss = at.epoch + 1, 0, 0.0, 0.0

    def save(self) -> None:
        """Write a checkpoint: one file for all processes, whose weights are the same. Raises DataError."""
        if not self._checkpoint:
            return
        group = self._engine.group
        dropout = group.all_gather(self._engine.random_state())
        if not group.is_first:
            return
        position = {**asdict(self.at), "epochs": [list(asdict(epoch).values()) for epoch in self.at.epochs]}
        state = {
            "position": position,
            "engine": self._engine.state(),
            "best": self.best,
            "shuffle": self._shuffle,
            "generator": self._generator.get_state(),
            "dropout": dropout,
        }
        self._checkpoint.write(self._identity, state)

    def _restore(self, state: dict[str, Any]) -> None:
        position = state["position"]
        self.at = LoopState(**{**position, "epochs": [EpochResult(*epoch) for epoch in position["epochs"]]})
        self._engine.load(state["engine"])
        self._engine.set_random_state(state["dropout"][self._engine.group.rank])
        self.best, self._shuffle = state["best"], state["shuffle"]
        self._generator.set_state(state["generator"])

    def _order(self) -> Tensor:
        """The epoch's order of rows; in the middle of an epoch, the one that it began with."""
        rows = len(self._train.labels_N)
        if not self.at.batch:
            self._shuffle = self._generator.get_state()
            return torch.randperm(rows, generator=self._generator)
        return torch.randperm(rows, generator=torch.Generator().set_state(self._shuffle))

    def _forget_ids(self, rows_BT: Tensor) -> None:
        if self._id_place is None or self._config.id_dropout <= 0:
            return
        slot, oov_row = self._id_place
        forget_B = torch.rand(len(rows_BT), generator=self._generator) < self._config.id_dropout
        rows_BT[:, slot].masked_fill_(forget_B, oov_row)


def user_id_place(preprocessing: Preprocessing) -> tuple[int, int] | None:
    """Slot of the user's id among T, and its out-of-vocabulary row; None where the schema has no such field."""
    layout = preprocessing.schema.layout("user")
    if layout.id_field is None or layout.id_slot is None:
        return None
    return layout.id_slot, preprocessing.oov_row(layout.id_field.name)


def _identity(
    config: TrainerConfig, engine: TrainStep, preprocessing: Preprocessing, train: ExpandedRows
) -> dict[str, Any]:
    """What a run and its continuation have in common."""
    seen = xxhash.xxh3_64(train.labels_N.numpy().tobytes())
    seen.update(train.rows_NT[:: max(1, len(train.rows_NT) // 1000)].numpy().tobytes())
    return {
        **{key: value for key, value in asdict(config).items() if key != "epochs"},
        "model": engine.model.name,
        "weights": sum(tensor.numel() for tensor in engine.state().values()),
        "training data": f"{len(train.labels_N)} rows, {preprocessing.rows} table rows, {seen.hexdigest()}",
        "processes": engine.group.size,
    }
