"""The training loop: Adam over whole batches, early stopping on validation log loss, the best epoch kept.

What keeps it from over-fitting, in the order of what each is worth: an L2 penalty on the whole table, standardised
numerics, averaged weights, out-of-vocabulary dropout of the user's id, early stopping.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from app.errors import DataError
from app.features.schema import Categorical
from app.models.contract import CtrModel
from app.models.inputs import Preprocessing
from app.training.prepare import Rows

PREDICT_ROWS = 16_384
MIN_IMPROVEMENT = 1e-5
REPORT_EVERY = 16
"""Batches between two reports of progress."""


@dataclass(frozen=True)
class Step:
    """Where training is, for a progress bar."""

    epoch: int
    done: int
    total: int
    """Rows done and rows in all, of this epoch."""
    validation_loss: float | None = None
    """Set once, at the end of the epoch."""
    best: bool = False


@dataclass(frozen=True)
class Epoch:
    train_loss: float
    validation_loss: float
    seconds: float
    """Of the training steps alone."""


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
    epochs: int = 30
    """At most; early stopping usually ends it before."""
    learning_rate: float = 2e-3
    patience: int = 3
    """Epochs without a better validation log loss before it stops."""
    table_l2: float = 6e-3
    """Factor of the sum of squares of the whole table, in a loss that is a mean over the batch's rows."""
    id_dropout: float = 0.2
    """Share of rows whose user id is replaced by out-of-vocabulary, so that the model learns what to do without."""
    averaging: float = 0.99
    """Decay of the moving average of weights, which is what gets evaluated and kept; 0 keeps the last weights."""
    seed: int = 0

    def build(self, model: CtrModel, preprocessing: Preprocessing) -> Trainer:
        return Trainer(self, model, preprocessing)


@dataclass
class Trainer:
    """Trains one model in place."""

    config: TrainerConfig
    model: CtrModel
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.config.seed)
        self._id_place = user_id_place(self.preprocessing)

    def fit(
        self, train: Rows, validation: Rows, report: Callable[[Step], None] | None = None, *, warm: bool = False
    ) -> Fitted:
        """Train until the validation log loss stops falling; the model ends with the best epoch's averaged weights.

        Args:
            warm: the model has learned before; else its bias begins at the training rows' log odds.

        Raises:
            DataError: fewer than two training rows, or the loss is not finite.
        """
        config, model = self.config, self.model
        rows = len(train.labels_N)
        if rows < 2:
            raise DataError(f"{rows} training rows are too few to train on")
        torch.manual_seed(config.seed)  # the dropout layers draw from torch's global generator
        if not warm:
            share = float(train.labels_N.mean().clamp(1e-4, 1 - 1e-4))
            with torch.no_grad():
                model.bias.fill_(math.log(share / (1 - share)))
        optimizer = self._optimizer()
        average = _Average(model, config.averaging)
        epochs: list[Epoch] = []
        best, best_epoch, kept = math.inf, 0, copy.deepcopy(model.state_dict())
        for number in range(config.epochs):
            started = time.perf_counter()
            train_loss = self._epoch(number, train, optimizer, average, report)
            seconds = time.perf_counter() - started
            validation_loss = log_loss(predict(average.model, validation), validation.labels_N)
            epochs.append(Epoch(train_loss, validation_loss, seconds))
            if not math.isfinite(train_loss) or not math.isfinite(validation_loss):
                raise DataError(f"the loss is not finite in epoch {number + 1}; lower the learning rate")
            improved = validation_loss < best - MIN_IMPROVEMENT
            if improved:
                best, best_epoch, kept = validation_loss, number, copy.deepcopy(average.model.state_dict())
            if report:
                report(Step(number, rows, rows, validation_loss, improved))
            if number - best_epoch >= config.patience:
                break
        model.load_state_dict(kept)
        model.eval()
        return Fitted(epochs, best_epoch, rows * len(epochs) / max(sum(e.seconds for e in epochs), 1e-9))

    def _optimizer(self) -> torch.optim.Optimizer:
        config, model = self.config, self.model
        tables = [getattr(model, name) for name in model.tables if isinstance(getattr(model, name), nn.Parameter)]
        others = [p for p in model.parameters() if all(p is not table for table in tables)]
        # Adam's (not AdamW's) weight decay d adds d * w to the gradient: that of a term d / 2 * sum(w * w) in the loss.
        groups = [{"params": tables, "weight_decay": 2 * config.table_l2}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.Adam(groups, lr=config.learning_rate, fused=True)

    def _epoch(
        self,
        number: int,
        train: Rows,
        optimizer: torch.optim.Optimizer,
        average: _Average,
        report: Callable[[Step], None] | None,
    ) -> float:
        model, size = self.model, self.config.batch_size
        rows = len(train.labels_N)
        order_N = torch.randperm(rows, generator=self._generator)
        # Batch norm cannot take one row: a lone last row joins the batch before it.
        starts = [start for start in range(0, rows, size) if start == 0 or rows - start > 1]
        total = torch.zeros(())
        model.train()
        for batch, start in enumerate(starts):
            chosen_B = order_N[start : start + size] if batch + 1 < len(starts) else order_N[start:]
            rows_BT, x_BT, labels_B = (tensor[chosen_B] for tensor in train)
            self._forget_ids(rows_BT)
            loss = binary_cross_entropy_with_logits(model.logits(rows_BT, x_BT), labels_B)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            average.update()
            total += loss.detach() * len(chosen_B)
            if report and batch % REPORT_EVERY == 0:
                report(Step(number, start + len(chosen_B), rows))
        return float(total) / rows

    def _forget_ids(self, rows_BT: Tensor) -> None:
        if self._id_place is None or self.config.id_dropout <= 0:
            return
        slot, oov_row = self._id_place
        forget_B = torch.rand(len(rows_BT), generator=self._generator) < self.config.id_dropout
        rows_BT[forget_B, slot] = oov_row


def user_id_place(preprocessing: Preprocessing) -> tuple[int, int] | None:
    """Slot of the user's id among T, and its out-of-vocabulary row; None where the schema has no such field."""
    slot = 0
    for spec in preprocessing.schema.side("user"):
        if isinstance(spec, Categorical) and spec.id:
            return slot, preprocessing.oov_row(spec.name)
        slot += spec.width
    return None


class _Average:
    """An exponential moving average of a model's weights and running statistics (Polyak & Juditsky 1992)."""

    def __init__(self, model: CtrModel, decay: float) -> None:
        self._source, self._decay, self._steps = model, decay, 0
        self.model = copy.deepcopy(model).eval() if decay > 0 else model
        self._averaged, self._live = _learned(self.model), _learned(model)

    @torch.no_grad()
    def update(self) -> None:
        if self._decay <= 0:
            return
        self._steps += 1
        # The first steps weigh more, so that the average forgets the initial weights within the first epoch.
        decay = min(self._decay, self._steps / (self._steps + 9))
        torch._foreach_lerp_(self._averaged, self._live, 1 - decay)


def _learned(model: CtrModel) -> list[Tensor]:
    """Weights and the running statistics of batch norms; other buffers never change."""
    running = [
        statistic
        for module in model.modules()
        if isinstance(module, nn.BatchNorm1d)
        for statistic in (module.running_mean, module.running_var)
        if statistic is not None
    ]
    return [*(parameter.detach() for parameter in model.parameters()), *running]


@torch.inference_mode()
def predict(model: CtrModel, examples: Rows) -> Tensor:
    """Logits [N], in evaluation mode; the model's mode is left as it was."""
    training = model.training
    model.eval()
    chunks = zip(torch.split(examples.rows_NT, PREDICT_ROWS), torch.split(examples.x_NT, PREDICT_ROWS), strict=True)
    parts = [model.logits(rows_BT, x_BT) for rows_BT, x_BT in chunks]
    model.train(training)
    return torch.cat(parts)


def log_loss(logits_N: Tensor, labels_N: Tensor) -> float:
    """Mean binary cross-entropy in nats."""
    return float(binary_cross_entropy_with_logits(logits_N.double(), labels_N.double()))
