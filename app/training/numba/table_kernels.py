"""`RowWiseRmsprop` for processors, compiled: each of a step's three walks over the batch's slots is one loop.

With torch's operators a batch of 256 rows spends more on starting them than on what they compute, and copies every row
out of the table and back. numba compiles these loops at the first step and keeps the result beside this file.

A row and all that is known of it fill whole cache lines as far as they can, and each walk asks memory for the rows that
it will come to: what many keys cost a step is waiting for rows.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from app.training.numba.prefetch import Array, fast, prefetch
from app.training.optim.embedding_lookup import EmbeddingLookup
from app.training.optim.rowwise_rmsprop import COUNT, DECAY, EPSILON, LAST, MOMENT, RowWiseRmsprop, RowWiseRmspropConfig

FEW_STEPS = 24
"""Up to here a row catches up step by step, on two numbers; beyond, by the closed form."""
NUMBER = 4
"""Column behind those of `RowWiseRmsprop`: the row's place among the distinct rows of the batch it was last in."""
LINE_BYTES, PIECE_BYTES = 64, 32
"""A row is padded to a multiple of the latter: two thirds of a line at worst are another row's."""
AHEAD = 16
"""Slots between asking for a row and using it."""


class NumbaRowWiseRmsprop(RowWiseRmsprop):
    """The same numbers as `RowWiseRmsprop` up to rounding."""

    def __init__(self, table_RE: Tensor, lookup: EmbeddingLookup, config: RowWiseRmspropConfig) -> None:
        super().__init__(table_RE, lookup, config)
        self._block: Array = self.block_RC.numpy()
        self._whole = self._block.view(np.int32 if self._block.itemsize == 4 else np.int64)
        self._starts = np.array([*lookup.starts, lookup.width], np.int64)
        self._places = np.arange(lookup.width)
        self.unique = np.empty(0, np.int64)
        """The distinct rows of the last batch that was looked up."""
        self.weights: Array = np.empty((0, self._width), self._block.dtype)
        """Their weights [U, E]: read more than once, which from the table would be another wait each time."""
        self._slots = np.empty((0, 0), np.int32)
        self._x_BT = np.empty((0, 0), self._block.dtype)

    def _room(self, rows: int, columns: int) -> Tensor:
        dtype = self._table_RE.numpy().dtype
        piece, line = PIECE_BYTES // dtype.itemsize, LINE_BYTES // dtype.itemsize
        columns = -(-(columns + 1) // piece) * piece
        block = np.zeros(rows * columns + line, dtype)
        start = -block.ctypes.data % LINE_BYTES // dtype.itemsize
        return torch.from_numpy(block[start : start + rows * columns].reshape(rows, columns))

    def find(self, rows_BT: Tensor, places: Array, fixed: Array) -> Array:
        """Look a batch up: its rows are caught up with, and the number of each slot's row [B, P] is returned.

        Args:
            places: which of the T slots.
            fixed: distinct rows that take the first numbers.
        """
        rows = rows_BT.numpy()
        slots = np.empty((len(rows), len(places)), np.int32)
        unique = np.empty(slots.size + len(fixed), np.int64)
        weights = np.empty((len(unique), self._width), self._block.dtype)
        averaging = self.config.averaging
        count = _find(
            rows, places, fixed, slots, unique, weights, self._block, self._whole, self._width, self._state, self.step,
            averaging, -math.log(averaging) if averaging else 0.0,
        )  # fmt: skip
        self.unique, self.weights = unique[:count], weights[:count]
        return slots

    def fields(self, rows_BT: Tensor, x_BT: Tensor, own: slice | None = None) -> Tensor:
        slots = self.find(rows_BT, self._places, np.empty(0, np.int64))
        self._slots = slots if own is None else slots[own]
        self._x_BT = x_BT.numpy()
        bags = np.zeros((len(self._slots), self.lookup.fields, self._width), self._block.dtype)
        _pool(self.weights, self._slots, self._x_BT, self._starts, bags)
        return torch.from_numpy(bags).requires_grad_()

    def gradient(self, fields_BFE: Tensor) -> Tensor:
        gradient = self.no_gradient()
        _scatter(fields_BFE.contiguous().numpy(), self._slots, self._x_BT, self._starts, gradient)
        return torch.from_numpy(gradient)

    def no_gradient(self) -> Array:
        """Zeros [U, E], for the distinct rows in the order of their numbers."""
        return np.zeros((len(self.unique), self._width), self._block.dtype)

    def update(self, gradient_UE: Tensor) -> None:
        config = self.config
        self.step += 1
        _move(
            gradient_UE.numpy(), self.unique, self._block, self._whole, self._state, self.step,
            config.learning_rate, config.l2, config.moment_decay,
        )  # fmt: skip


@fast
def _find(
    rows: Array, places: Array, fixed: Array, slots: Array, unique: Array, weights: Array, block: Array, whole: Array,
    width: int, state: int, step: int, averaging: float, forget: float,
) -> int:  # fmt: skip
    """Number the distinct rows, write each slot's number, and let each row catch up in its place."""
    count = 0
    for row in fixed:
        count = _met(row, count, unique, weights, block, whole, width, state, step, averaging, forget)
    line = LINE_BYTES // block.itemsize
    examples, each = slots.shape
    ahead, later = 0, 0  # example and slot of the row that is asked for
    for n in range(min(AHEAD, examples * each)):
        _ask(block, rows[n // each, places[n % each]], line)
        ahead, later = (n + 1) // each, (n + 1) % each
    for b in range(examples):
        for p in range(each):
            if ahead < examples:
                _ask(block, rows[ahead, places[later]], line)
                later += 1
                if later == each:
                    ahead, later = ahead + 1, 0
            row = rows[b, places[p]]
            count = _met(row, count, unique, weights, block, whole, width, state, step, averaging, forget)
            slots[b, p] = whole[row, state + NUMBER]
    return count


@fast
def _ask(block: Array, row: int, line: int) -> None:
    for column in range(0, block.shape[1], line):
        prefetch(block, row, column)


@fast
def _met(
    row: int, count: int, unique: Array, weights: Array, block: Array, whole: Array, width: int, state: int, step: int,
    averaging: float, forget: float,
) -> int:  # fmt: skip
    """How many distinct rows there are with this one, which catches up where it is new."""
    number = whole[row, state + NUMBER]
    # A number is only believed where the list agrees, so that none has to be taken back (Briggs & Torczon 1993).
    if number < count and unique[number] == row:
        return count
    whole[row, state + NUMBER] = count
    unique[count] = row
    passed = step - whole[row, state + LAST]
    if passed > 0:
        decay = float(block[row, state + DECAY])
        if passed <= FEW_STEPS:
            p = math.exp(-decay)
            kept, gain, forgotten = 1.0, 0.0, 1.0
            for _ in range(passed):
                kept *= p
                gain = averaging * gain + (1.0 - averaging) * kept
                forgotten *= averaging
        else:
            kept, forgotten, gain = math.exp(-decay * passed), 0.0, 0.0
            if forget > 0.0:
                forgotten = math.exp(-forget * passed)
                apart = abs(decay - forget) + 1e-30
                gain = math.expm1(-apart * passed) / math.expm1(-apart)
                gain *= (1.0 - averaging) * math.exp(min(decay, forget) * (1 - passed) - decay)
        keep, forgets, gains = block.dtype.type(kept), block.dtype.type(forgotten), block.dtype.type(gain)
        if state > width:
            for e in range(width):
                block[row, width + e] = block[row, width + e] * forgets + block[row, e] * gains
        for e in range(width):
            block[row, e] *= keep
        whole[row, state + LAST] = step
    for e in range(width):
        weights[count, e] = block[row, e]
    return count + 1


@fast
def _pool(weights: Array, slots: Array, x: Array, starts: Array, bags: Array) -> None:
    examples, fields, width = bags.shape
    for b in range(examples):
        for f in range(fields):
            for t in range(starts[f], starts[f + 1]):
                factor = x[b, t]
                if factor != 0.0:
                    number = slots[b, t]
                    for e in range(width):
                        bags[b, f, e] += factor * weights[number, e]


@fast
def _scatter(slopes: Array, slots: Array, x: Array, starts: Array, gradient: Array) -> None:
    examples, fields, width = slopes.shape
    for b in range(examples):
        for f in range(fields):
            for t in range(starts[f], starts[f + 1]):
                factor = x[b, t]
                if factor != 0.0:
                    number = slots[b, t]
                    for e in range(width):
                        gradient[number, e] += factor * slopes[b, f, e]


@fast
def _move(
    gradient: Array, unique: Array, block: Array, whole: Array, state: int, step: int, rate: float, l2: float, b: float
) -> None:
    count, width = gradient.shape
    forget = math.log(b)
    line = LINE_BYTES // block.itemsize
    for number in range(count):
        if number + AHEAD < count:
            _ask(block, unique[number + AHEAD], line)
        row = unique[number]
        square = block.dtype.type(0)
        for e in range(width):
            square += gradient[number, e] * gradient[number, e]
        moment = b * block[row, state + MOMENT] + (1.0 - b) * square / width
        times = block[row, state + COUNT] + 1.0
        scale = math.sqrt(moment / -math.expm1(times * forget)) + EPSILON
        factor = block.dtype.type(rate / scale)
        for e in range(width):
            block[row, e] -= factor * gradient[number, e]
        block[row, state + MOMENT] = moment
        block[row, state + COUNT] = times
        block[row, state + DECAY] = 2.0 * l2 * rate / scale
        whole[row, state + LAST] = step - 1
