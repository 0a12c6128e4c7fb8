"""What `RowWiseRmsprop` computes, written plainly in float64 over the whole table at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from app.training.optim.rowwise_rmsprop import RowWiseRmspropConfig


class DenseTable:
    def __init__(self, table_RE: Tensor, config: RowWiseRmspropConfig, offset_rows: Sequence[int] = ()) -> None:
        self.offset_rows = list(offset_rows)
        self.weights_RE, self.config, self.step = table_RE.double().clone(), config, 0
        self.weights_RE[self.offset_rows, 1:] = 0.0
        self.moment_R = torch.zeros(len(table_RE), dtype=torch.float64)
        self.count_R = torch.zeros_like(self.moment_R)
        self.sum_RE = torch.zeros_like(self.weights_RE)

    def update(self, used_U: Tensor, gradient_RE: Tensor) -> None:
        """
        Args:
            used_U: the rows of the batch; gradient_RE: of the whole table, zero for the others.
        """
        config, a, b = self.config, self.config.averaging, self.config.moment_decay
        self.step += 1
        g_RE = gradient_RE.double().clone()
        g_RE[self.offset_rows, 1:] = 0.0
        self.moment_R[used_U] = b * self.moment_R[used_U] + (1 - b) * g_RE[used_U].square().mean(1)
        self.count_R[used_U] += 1
        scale_R = (self.moment_R / (1 - b**self.count_R).clamp_min(1e-300)).sqrt() + 1e-8
        self.weights_RE[used_U] -= config.learning_rate * g_RE[used_U] / scale_R[used_U].unsqueeze(1)
        decay_R = torch.where(self.count_R > 0, 2 * config.l2 * config.learning_rate / scale_R, 0.0)
        decay_R[self.offset_rows] = 0.0
        self.weights_RE *= torch.exp(-decay_R).unsqueeze(1)
        self.sum_RE = a * self.sum_RE + (1 - a) * self.weights_RE

    def table(self) -> Tensor:
        """The averaged weights, or the weights where there is no average."""
        if self.config.averaging == 0:
            return self.weights_RE
        return self.sum_RE / -math.expm1(self.step * math.log(self.config.averaging))
