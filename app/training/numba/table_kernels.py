"""Run `RowWiseRmsprop` on the CPU by loops that numba compiles: one for each of a step's walks over a batch.

With torch's operators a batch of 256 rows spends more on starting them than on what they compute, and copies every row
out of the table and back. numba compiles these loops at the first step and caches the result beside this file.

With many keys a step waits for table rows, so a row and its state fill whole cache lines as far as they can, each
distinct row is visited once for the forward pass and once for the step, and rows are prefetched.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from app.training.numba.jit import Array, fast_njit
from app.training.numba.prefetch import prefetch
from app.training.optim.embedding_lookup import EmbeddingLookup
from app.training.optim.rowwise_rmsprop import COUNT, DECAY, EPSILON, LAST, MOMENT, RowWiseRmsprop, RowWiseRmspropConfig

FEW_STEPS = 24
"""A row that missed at most this many steps catches up step by step; one that missed more, by the closed form."""
LINE_BYTES, ROW_ALIGNMENT_BYTES = 64, 32
"""Rows are padded to a multiple of the second: at worst two thirds of a fetched cache line are another row's."""
PREFETCH_DISTANCE = 16
"""A row is prefetched this many rows ahead of its use."""


class NumbaRowWiseRmsprop(RowWiseRmsprop):
    """Computes the same numbers as `RowWiseRmsprop` up to rounding."""

    def __init__(
        self,
        table_RE: Tensor,
        lookup: EmbeddingLookup,
        config: RowWiseRmspropConfig,
        offset_rows: Tensor | None = None,
    ) -> None:
        super().__init__(table_RE, lookup, config, offset_rows)
        self._block: Array = self.block_RC.numpy()
        self._integers = self._block.view(np.int32 if self._block.itemsize == 4 else np.int64)
        self._index_R1 = np.zeros((len(self._block), 1), np.int32)
        """Each row's position among the distinct rows of the batch it was last in."""
        self._starts_F = np.array([*lookup.field_starts, lookup.slot_count], np.int64)
        self._all_slots_T = np.arange(lookup.slot_count)
        self.unique_U = np.empty(0, np.int64)
        """The distinct rows of the last batch that was looked up."""
        self.weights_UE: Array = np.empty((0, self._width), self._block.dtype)
        """A copy of their weights, which are read more than once while the table's rows may be in no cache."""
        self._index_OT = np.empty((0, 0), np.int32)
        self._x_OT = np.empty((0, 0), self._block.dtype)

    def _zeros(self, rows: int, columns: int) -> Tensor:
        dtype = self._table_RE.numpy().dtype
        multiple, line = ROW_ALIGNMENT_BYTES // dtype.itemsize, LINE_BYTES // dtype.itemsize
        columns = -(-columns // multiple) * multiple
        block = np.zeros(rows * columns + line, dtype)
        start = -block.ctypes.data % LINE_BYTES // dtype.itemsize
        return torch.from_numpy(block[start : start + rows * columns].reshape(rows, columns))

    def look_up(self, rows_BT: Tensor, slots_P: Array, first_rows: Array) -> Array:
        """Find a batch's distinct rows and let them catch up; return each slot's index [B, P] into `unique_U`.

        Args:
            slots_P: which of the T slots to look up.
            first_rows: distinct rows that take the first indices, in the batch or not.
        """
        rows = rows_BT.numpy()
        index_BP = np.empty((len(rows), len(slots_P)), np.int32)
        unique = np.empty(index_BP.size + len(first_rows), np.int64)
        count = _find_unique(rows, slots_P, first_rows, self._index_R1, index_BP, unique)
        self.unique_U = unique[:count]
        self.weights_UE = np.empty((count, self._width), self._block.dtype)
        averaging = self.config.averaging
        _catch_up(
            self.unique_U, self.weights_UE, self._block, self._integers, self._state_start, self.step, averaging,
            -math.log(averaging) if averaging else 0.0,
        )  # fmt: skip
        return index_BP

    def fields(self, rows_BT: Tensor, x_OT: Tensor, part: slice | None = None) -> Tensor:
        index_BT = self.look_up(rows_BT, self._all_slots_T, np.empty(0, np.int64))
        self._index_OT = index_BT if part is None else index_BT[part]
        self._x_OT = x_OT.numpy()
        fields_OFE = np.zeros((len(self._index_OT), self.lookup.field_count, self._width), self._block.dtype)
        _pool(self.weights_UE, self._index_OT, self._x_OT, self._starts_F, fields_OFE)
        return torch.from_numpy(fields_OFE).requires_grad_()

    def gradient(self, slope_OFE: Tensor) -> Tensor:
        gradient_UE = self.zero_gradient()
        _scatter(slope_OFE.contiguous().numpy(), self._index_OT, self._x_OT, self._starts_F, gradient_UE)
        return torch.from_numpy(gradient_UE)

    def zero_gradient(self) -> Array:
        """Return zeros [U, E], for the distinct rows in the order of their indices."""
        return np.zeros((len(self.unique_U), self._width), self._block.dtype)

    def _unique_rows(self) -> Tensor:
        return torch.from_numpy(self.unique_U)

    def _move(self, gradient_UE: Tensor) -> None:
        config = self.config
        _apply(
            gradient_UE.numpy(), self.unique_U, self._block, self._integers, self._state_start, self.step,
            config.learning_rate, config.l2, config.moment_decay,
        )  # fmt: skip


@fast_njit
def _find_unique(rows: Array, slots: Array, first_rows: Array, index_of_row: Array, index: Array, unique: Array) -> int:
    """Write each slot's index and the distinct rows, in the order in which they occur; return how many there are."""
    count = 0
    for row in first_rows:
        index_of_row[row, 0] = count
        unique[count] = row
        count += 1
    examples, width = index.shape
    for b in range(examples):
        if b + 1 < examples:
            for p in range(width):
                prefetch(index_of_row, rows[b + 1, slots[p]], 0)
        for p in range(width):
            row = rows[b, slots[p]]
            position = index_of_row[row, 0]
            # An index is only believed where `unique` agrees, so that none has to be reset (Briggs & Torczon 1993).
            if position >= count or unique[position] != row:
                position = count
                index_of_row[row, 0] = count
                unique[count] = row
                count += 1
            index[b, p] = position
    return count


@fast_njit
def _prefetch_row(block: Array, row: int) -> None:
    for column in range(0, block.shape[1], LINE_BYTES // block.itemsize):
        prefetch(block, row, column)


@fast_njit
def _catch_up(
    unique: Array, weights: Array, block: Array, integers: Array, state_start: int, step: int, averaging: float,
    forget: float,
) -> None:  # fmt: skip
    """Apply the decay and the averaging that each row has missed, and copy its weights."""
    count, width = weights.shape
    for index in range(min(PREFETCH_DISTANCE, count)):
        _prefetch_row(block, unique[index])
    for index in range(count):
        if index + PREFETCH_DISTANCE < count:
            _prefetch_row(block, unique[index + PREFETCH_DISTANCE])
        row = unique[index]
        missed = step - integers[row, state_start + LAST]
        if missed > 0:
            decay = float(block[row, state_start + DECAY])
            if missed <= FEW_STEPS:
                p = math.exp(-decay)
                weight_factor, weight_gain, average_factor = 1.0, 0.0, 1.0
                for _ in range(missed):
                    weight_factor *= p
                    weight_gain = averaging * weight_gain + (1.0 - averaging) * weight_factor
                    average_factor *= averaging
            else:
                weight_factor, average_factor, weight_gain = math.exp(-decay * missed), 0.0, 0.0
                if forget > 0.0:
                    average_factor = math.exp(-forget * missed)
                    difference = abs(decay - forget) + 1e-30
                    weight_gain = math.expm1(-difference * missed) / math.expm1(-difference)
                    weight_gain *= (1.0 - averaging) * math.exp(min(decay, forget) * (1 - missed) - decay)
            weight_scale, average_scale = block.dtype.type(weight_factor), block.dtype.type(average_factor)
            gain = block.dtype.type(weight_gain)
            if state_start > width:
                for e in range(width):
                    block[row, width + e] = block[row, width + e] * average_scale + block[row, e] * gain
            for e in range(width):
                block[row, e] *= weight_scale
            integers[row, state_start + LAST] = step
        for e in range(width):
            weights[index, e] = block[row, e]


@fast_njit
def _pool(weights: Array, index: Array, x: Array, starts: Array, fields: Array) -> None:
    """Add up x times the row's weights over each field's slots."""
    examples, field_count, width = fields.shape
    for b in range(examples):
        for f in range(field_count):
            for t in range(starts[f], starts[f + 1]):
                factor = x[b, t]
                if factor != 0.0:
                    row = index[b, t]
                    for e in range(width):
                        fields[b, f, e] += factor * weights[row, e]


@fast_njit
def _scatter(slopes: Array, index: Array, x: Array, starts: Array, gradient: Array) -> None:
    """Add up x times the gradient of the slot's field over each row's slots."""
    examples, field_count, width = slopes.shape
    for b in range(examples):
        for f in range(field_count):
            for t in range(starts[f], starts[f + 1]):
                factor = x[b, t]
                if factor != 0.0:
                    row = index[b, t]
                    for e in range(width):
                        gradient[row, e] += factor * slopes[b, f, e]


@fast_njit
def _apply(
    gradient: Array, unique: Array, block: Array, integers: Array, state_start: int, step: int, rate: float, l2: float,
    moment_decay: float,
) -> None:  # fmt: skip
    """Move each row by its gradient and update its moment, count and decay."""
    count, width = gradient.shape
    log_decay = math.log(moment_decay)
    for index in range(count):
        if index + PREFETCH_DISTANCE < count:
            _prefetch_row(block, unique[index + PREFETCH_DISTANCE])
        row = unique[index]
        square = block.dtype.type(0)
        for e in range(width):
            square += gradient[index, e] * gradient[index, e]
        moment = moment_decay * block[row, state_start + MOMENT] + (1.0 - moment_decay) * square / width
        uses = block[row, state_start + COUNT] + 1.0
        scale = math.sqrt(moment / -math.expm1(uses * log_decay)) + EPSILON
        factor = block.dtype.type(rate / scale)
        for e in range(width):
            block[row, e] -= factor * gradient[index, e]
        block[row, state_start + MOMENT] = moment
        block[row, state_start + COUNT] = uses
        block[row, state_start + DECAY] = 2.0 * l2 * rate / scale
        integers[row, state_start + LAST] = step - 1
