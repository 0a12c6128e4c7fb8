"""Optimise an embedding table by steps that cost what the batch's rows cost, however many rows the table has.

Every step t of the whole table is, for the rows R_t that the batch uses, with g the gradient of a row's E numbers,

    v <- v + (1 - b)(mean(g * g) - v),  n <- n + 1,  s = sqrt(v / (1 - b^n)),  w <- w - rate * g / s

and then, for every row that was ever used,

    w <- w * exp(-rate * 2 * l2 / s)                the L2 term's gradient, with the same preconditioner
    average <- a * average + (1 - a) * w            Adam's bias correction of it comes at the end: 1 / (1 - a^t)

The first line is RMSprop with one second moment per row (row-wise, as in Naumov et al. 2019) and no momentum: a row
that is seldom used moves at once by what Adam would spread over later steps. The second half touches every row, but as
s and so the factor stay what they are until the row is used again, K such steps have a closed form:

    w_K = w p^K,   average_K = a^K average + (1 - a) w p (p^K - a^K) / (p - a),   p = exp(-rate * 2 * l2 / s)

so a row catches up when it is next used, or when the whole table is written back. Of offset rows the first number alone
is trained, without penalty: they shift a logit, and do not change what else makes it.
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
"""Columns behind a row's weights and their average: v, n, the decay's exponent, and the step it has caught up to."""


@dataclass(frozen=True)
class RowWiseRmspropConfig:
    """Holds the optimiser's constants: `rate`, `l2`, `a` and `b` of the formulas."""

    learning_rate: float
    l2: float
    """Factor of the sum of squares of the table but for offset rows, in a loss that is a mean over the batch's rows."""
    averaging: float
    """Decay of the moving average; with 0 there is none."""
    moment_decay: float = 0.999


class RowWiseRmsprop:
    """Trains one table [R, E]. A row's weights, average and state lie side by side, so that they are read together.

    The table itself is stale until `write_back`. Shape suffixes: B rows of a batch, O those that this process computes,
    U distinct table rows of the batch, E = 1 + K.
    """

    def __init__(
        self,
        table_RE: Tensor,
        lookup: EmbeddingLookup,
        config: RowWiseRmspropConfig,
        offset_rows: Tensor | None = None,
    ) -> None:
        """Copy the table's weights into a block in which each row is followed by its average and its state.

        Args:
            offset_rows: rows [P] of which the first number alone is trained, by sqrt(E) times the step of one number
                among E, and the others are 0; None for no such rows.
        """
        self.config, self.lookup, self.step = config, lookup, 0
        self._table_RE = table_RE
        rows, self._width = table_RE.shape
        self._averaged = config.averaging > 0
        self._state_start = self._width * (1 + self._averaged)
        self.block_RC = self._zeros(rows, self._state_start + 4)
        self.block_RC[:, : self._width] = table_RE
        self._is_offset_R: Tensor | None = None
        if offset_rows is not None:
            self.block_RC[offset_rows, 1 : self._width] = 0.0
            self._is_offset_R = torch.zeros(rows, dtype=torch.bool, device=table_RE.device)
            self._is_offset_R[offset_rows] = True
        self._current_UC = self.block_RC[:0]
        self._batch: BatchRows | None = None

    def _zeros(self, rows: int, columns: int) -> Tensor:
        """Allocate zeros [rows, columns], or with more columns."""
        if self._table_RE.device.type != "cpu":
            return self._table_RE.new_zeros(rows, columns)
        # numpy asks for huge pages, torch does not: with many keys half of a row's cost is finding its page.
        return torch.from_numpy(np.zeros((rows, columns), self._table_RE.numpy().dtype))

    def fields(self, rows_BT: Tensor, x_OT: Tensor, part: slice | None = None) -> Tensor:
        """Compute field vectors [O, F, E], a leaf tensor whose gradient `gradient` takes.

        Args:
            part: which of the B rows to compute; None computes all. The other rows' table rows are looked up as well,
                as `update` takes the gradient of the whole batch.
        """
        batch = self.lookup.find_unique(rows_BT, x_OT, part)
        self._current_UC = self._catch_up(self.block_RC.index_select(0, batch.unique_U), self.step)
        self._batch = batch
        weights_UE = self._current_UC[:, : self._width].contiguous()
        return self.lookup.pool(weights_UE, batch).requires_grad_()

    def gradient(self, slope_OFE: Tensor) -> Tensor:
        """Compute the gradient [U, E] of the table rows that `fields` looked up from that of the field vectors."""
        assert self._batch is not None
        return self.lookup.scatter(slope_OFE, self._batch)

    def update(self, gradient_UE: Tensor) -> None:
        """Take one step. The batch's rows move; their decay and averaging wait until they are used again.

        Of the gradient what is none of an offset row's is zeroed in place.
        """
        self.step += 1
        if self._is_offset_R is None:
            self._move(gradient_UE)
            return
        unique_U = self._unique_rows()
        is_offset_U = self._is_offset_R[unique_U]
        gradient_UE[:, 1:].masked_fill_(is_offset_U.unsqueeze(1), 0.0)
        self._move(gradient_UE)
        self.block_RC[unique_U[is_offset_U], self._state_start + DECAY] = 0.0

    def _unique_rows(self) -> Tensor:
        """Return the distinct table rows [U] of the batch that was looked up last."""
        assert self._batch is not None
        return self._batch.unique_U

    def _move(self, gradient_UE: Tensor) -> None:
        """Move the batch's rows, and note by how much they decay until they are used again."""
        assert self._batch is not None
        config, current_UC, state_start = self.config, self._current_UC, self._state_start
        moment_U, count_U = current_UC[:, state_start + MOMENT], current_UC[:, state_start + COUNT]
        square_U = torch.linalg.vector_norm(gradient_UE, dim=1).square_().div_(max(self._width, 1))
        moment_U.lerp_(square_U, 1 - config.moment_decay)
        count_U.add_(1)
        correction_U = torch.expm1(count_U * math.log(config.moment_decay)).neg_()
        scale_U = (moment_U / correction_U).sqrt_().add_(EPSILON)
        current_UC[:, : self._width].addcdiv_(gradient_UE, scale_U.unsqueeze(1), value=-config.learning_rate)
        torch.div(2 * config.l2 * config.learning_rate, scale_U, out=scale_U)
        current_UC[:, state_start + DECAY] = scale_U
        # The row catches up with this step too when it is next used: one decay and one average more.
        self._last_step(current_UC).fill_(self.step - 1)
        self.block_RC.index_copy_(0, self._batch.unique_U, current_UC)

    def write_back(self) -> None:
        """Make the table what it would be had every step gone over all of it: its averaged weights, if it has any."""
        for rows in self._chunks():
            chunk_UC = self._catch_up(self.block_RC[rows].clone(), self.step)
            if self._averaged and self.step:
                correction = -math.expm1(self.step * math.log(self.config.averaging))
                self._table_RE[rows] = chunk_UC[:, self._width : self._state_start] / correction
            else:
                self._table_RE[rows] = chunk_UC[:, : self._width]

    def _catch_up(self, current_UC: Tensor, step: int) -> Tensor:
        """Change the rows in place to what they are after `step`, and return them."""
        width, state_start = self._width, self._state_start
        missed_U = (step - self._last_step(current_UC)).to(current_UC.dtype)
        decay_U = current_UC[:, state_start + DECAY]
        weights_UE = current_UC[:, :width]
        if self._averaged:
            a = self.config.averaging
            forget = -math.log(a)
            # (p^K - a^K) / (p - a) in a form that is exact where p and a are close: with d = |ln p - ln a|, and q the
            # larger of p and a, it is q^(K - 1) (1 - exp(-d K)) / (1 - exp(-d)).
            smaller_U = decay_U.clamp(max=forget)
            difference_U = (decay_U - forget).abs_().add_(1e-30)
            ratio_U = torch.expm1(-difference_U * missed_U).div_(torch.expm1(-difference_U))
            log_U = torch.mul(smaller_U, 1 - missed_U).sub_(decay_U)
            gain_U = ratio_U.mul_(log_U.exp_()).mul_(1 - a)
            average_UE = current_UC[:, width:state_start]
            average_UE.mul_(torch.exp(missed_U * -forget).unsqueeze(1))
            average_UE.addcmul_(weights_UE, gain_U.unsqueeze(1))
        weights_UE.mul_(torch.exp(-decay_U * missed_U).unsqueeze(1))
        self._last_step(current_UC).fill_(step)
        return current_UC

    def _last_step(self, rows_UC: Tensor) -> Tensor:
        """View each row's last step as integers in the block's bits: a float32 would stop counting at 2**24 steps."""
        return rows_UC.view(torch.int32 if rows_UC.itemsize == 4 else torch.int64)[:, self._state_start + LAST]

    def _chunks(self) -> Iterator[slice]:
        """Cut the rows into slices, so that `write_back` needs little memory."""
        rows = len(self.block_RC)
        return (slice(start, min(start + CHUNK_ROWS, rows)) for start in range(0, rows, CHUNK_ROWS))
