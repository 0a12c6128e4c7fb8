"""Steps on an embedding table whose cost depends on the batch's rows and not on how many rows the table has.

Every step t of the whole table is, for the rows R_t that the batch uses, with g the gradient of a row's E numbers,

    v <- v + (1 - b)(mean(g * g) - v),  n <- n + 1,  s = sqrt(v / (1 - b^n)),  w <- w - rate * g / s

and then, for every row that was ever used,

    w <- w * exp(-rate * 2 * l2 / s)                the L2 term's gradient, with the same preconditioner
    average <- a * average + (1 - a) * w            Adam's bias correction of it comes at the end: 1 / (1 - a^t)

The first line is RMSprop with one second moment per row (row-wise, as in Naumov et al. 2019) and no momentum: a row
that is seldom used moves at once by what Adam would spread over later steps. The second half touches every row, but as
s and so the factor stay what they are until the row is used again, K such steps have a closed form:

    w_K = w p^K,   average_K = a^K average + (1 - a) w p (p^K - a^K) / (p - a),   p = exp(-rate * 2 * l2 / s)

so a row catches up when it is next used, or when the whole table is asked for;
`tests/training/optim/dense_reference.py` is the same written plainly over the whole table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from app.training.optim.embedding_lookup import BatchRows, EmbeddingLookup

EPSILON = 1e-8
CHUNK_ROWS = 1 << 18
MOMENT, COUNT, DECAY, LAST = range(4)
"""Columns behind a row's weights and their average: v, n, the decay's exponent, and the step it is caught up to."""


@dataclass(frozen=True)
class RowWiseRmspropConfig:
    learning_rate: float
    l2: float
    """Factor of the sum of squares of the whole table, in a loss that is a mean over the batch's rows."""
    averaging: float
    """Decay of the moving average; 0 keeps none."""
    moment_decay: float = 0.999


class RowWiseRmsprop:
    """Trains one table [R, E]. What a step needs of a row lies in one place, so that it costs one walk through memory.

    The table itself is stale until `write_back`.
    """

    def __init__(self, table_RE: Tensor, lookup: EmbeddingLookup, config: RowWiseRmspropConfig) -> None:
        self.config, self.lookup, self.step = config, lookup, 0
        self._table_RE = table_RE
        rows, self._width = table_RE.shape
        self._averaged = config.averaging > 0
        self._state = self._width * (1 + self._averaged)
        self.block_RC = self._room(rows, self._state + 4)
        self.block_RC[:, : self._width] = table_RE
        self._fresh_UC = self.block_RC[:0]
        self._used: BatchRows | None = None

    def _room(self, rows: int, columns: int) -> Tensor:
        """Zeros [rows, columns], or with more columns."""
        if self._table_RE.device.type != "cpu":
            return self._table_RE.new_zeros(rows, columns)
        # numpy asks for large pages, torch does not: with many keys half of a row's cost is finding its page.
        return torch.from_numpy(np.zeros((rows, columns), self._table_RE.numpy().dtype))

    def fields(self, rows_BT: Tensor, x_BT: Tensor, own: slice | None = None) -> Tensor:
        """Field vectors [B, F, E] of a batch, a leaf: the gradient it gets is what `update` takes.

        Args:
            own: which of the rows to compute; None all. The others' table rows are readied for `update` alike.
        """
        used = self.lookup.used(rows_BT, x_BT, own)
        self._fresh_UC = self._caught_up(self.block_RC.index_select(0, used.unique_U), self.step)
        self._used = used
        weights_UE = self._fresh_UC[:, : self._width].contiguous()
        return self.lookup.pooled(weights_UE, used).requires_grad_()

    def gradient(self, fields_BFE: Tensor) -> Tensor:
        """Gradient [U, E] of the table rows that the last `fields` looked up, from that of the field vectors."""
        assert self._used is not None
        return self.lookup.scattered(fields_BFE, self._used)

    def update(self, gradient_UE: Tensor) -> None:
        """One step. Each row's weights move; its decay and average wait until it is used again."""
        assert self._used is not None
        config, fresh_UC, state = self.config, self._fresh_UC, self._state
        self.step += 1
        moment_U, count_U = fresh_UC[:, state + MOMENT], fresh_UC[:, state + COUNT]
        square_U = torch.linalg.vector_norm(gradient_UE, dim=1).square_().div_(max(self._width, 1))
        moment_U.lerp_(square_U, 1 - config.moment_decay)
        count_U.add_(1)
        correction_U = torch.expm1(count_U * math.log(config.moment_decay)).neg_()
        scale_U = (moment_U / correction_U).sqrt_().add_(EPSILON)
        fresh_UC[:, : self._width].addcdiv_(gradient_UE, scale_U.unsqueeze(1), value=-config.learning_rate)
        torch.div(2 * config.l2 * config.learning_rate, scale_U, out=scale_U)
        fresh_UC[:, state + DECAY] = scale_U
        # The step itself is caught up with later: one decay and one average more than the steps between.
        self._last(fresh_UC).fill_(self.step - 1)
        self.block_RC.index_copy_(0, self._used.unique_U, fresh_UC)

    def write_back(self) -> None:
        """The table becomes what it would be had every step gone over all of it: its averaged weights, if any."""
        for rows in self._chunks():
            chunk_UC = self._caught_up(self.block_RC[rows].clone(), self.step)
            if self._averaged and self.step:
                correction = -math.expm1(self.step * math.log(self.config.averaging))
                self._table_RE[rows] = chunk_UC[:, self._width : self._state] / correction
            else:
                self._table_RE[rows] = chunk_UC[:, : self._width]

    def _caught_up(self, fresh_UC: Tensor, step: int) -> Tensor:
        """The rows, changed in place, as they are after `step`."""
        width, state = self._width, self._state
        passed_U = (step - self._last(fresh_UC)).to(fresh_UC.dtype)
        decay_U = fresh_UC[:, state + DECAY]
        weights_UE = fresh_UC[:, :width]
        if self._averaged:
            a = self.config.averaging
            forget = -math.log(a)
            # (p^K - a^K) / (p - a) in a form that is exact where p and a are close: with d = |ln p - ln a|, and q the
            # larger of p and a, it is q^(K - 1) (1 - exp(-d K)) / (1 - exp(-d)).
            slower_U = decay_U.clamp(max=forget)
            apart_U = (decay_U - forget).abs_().add_(1e-30)
            ratio_U = torch.expm1(-apart_U * passed_U).div_(torch.expm1(-apart_U))
            log_U = torch.mul(slower_U, 1 - passed_U).sub_(decay_U)
            gain_U = ratio_U.mul_(log_U.exp_()).mul_(1 - a)
            average_UE = fresh_UC[:, width:state]
            average_UE.mul_(torch.exp(passed_U * -forget).unsqueeze(1))
            average_UE.addcmul_(weights_UE, gain_U.unsqueeze(1))
        weights_UE.mul_(torch.exp(-decay_U * passed_U).unsqueeze(1))
        self._last(fresh_UC).fill_(step)
        return fresh_UC

    def _last(self, rows_UC: Tensor) -> Tensor:
        # Whole numbers in the same 32 bits: a float would stop counting at 2**24 steps.
        return rows_UC.view(torch.int32 if rows_UC.itemsize == 4 else torch.int64)[:, self._state + LAST]

    def _chunks(self) -> Iterator[slice]:
        rows = len(self.block_RC)
        return (slice(start, min(start + CHUNK_ROWS, rows)) for start in range(0, rows, CHUNK_ROWS))
