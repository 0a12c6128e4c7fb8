"""`TableSteps` for processors, compiled: each of a step's three walks over the batch's slots is one loop.

With torch's operators a batch of 256 rows spends more on starting them than on what they compute, and copies every row
out of the table and back. numba compiles these loops at the first step and keeps the result beside this file.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.training.lookup import Lookup
from app.training.table_steps import COUNT, DECAY, EPSILON, LAST, MOMENT, TableConfig, TableSteps

Array = npt.NDArray[Any]
FEW_STEPS = 24
"""Up to here a row catches up step by step, on two numbers; beyond, by the closed form."""


class CompiledSteps(TableSteps):
    """The same numbers as `TableSteps` up to rounding."""

    def __init__(self, table_RE: Tensor, lookup: Lookup, config: TableConfig) -> None:
        super().__init__(table_RE, lookup, config)
        self._block: Array = self.block_RC.numpy()
        self._note = np.full(len(table_RE), -1, np.int32)
        self._unique = np.empty(0, np.int64)
        self._slots = np.empty(0, np.int32)
        self._x = np.empty(0, np.float32)
        self._starts = np.array([*lookup.starts, lookup.width], np.int64)

    def fields(self, rows_BT: Tensor, x_BT: Tensor, own: slice | None = None) -> Tensor:
        rows, width = rows_BT.numpy(), self._width
        own = own or slice(0, len(rows))
        self._note[self._unique] = -1
        self._slots = np.empty(rows.size, np.int32)
        unique = np.empty(rows.size, np.int64)
        averaging = self.config.averaging
        count = _find(
            rows.reshape(-1), self._note, self._slots, unique, self._block, self._block.view(np.int32), width,
            self._state, self.step, averaging, -math.log(averaging) if averaging else 0.0,
        )  # fmt: skip
        self._unique = unique[:count]
        self._slots = self._slots[own.start * rows.shape[1] : own.stop * rows.shape[1]]
        self._x = x_BT.numpy().reshape(-1)
        bags = np.zeros((own.stop - own.start, self.lookup.fields, width), np.float32)
        _pool(self._unique, self._slots, self._x, self._starts, self._block, bags)
        return torch.from_numpy(bags).requires_grad_()

    def gradient(self, fields_BFE: Tensor) -> Tensor:
        gradient = np.zeros((len(self._unique), self._width), np.float32)
        _scatter(fields_BFE.contiguous().numpy(), self._slots, self._x, self._starts, gradient)
        return torch.from_numpy(gradient)

    def update(self, gradient_UE: Tensor) -> None:
        config = self.config
        self.step += 1
        _move(
            gradient_UE.numpy(), self._unique, self._block, self._block.view(np.int32), self._state, self.step,
            config.learning_rate, config.l2, config.moment_decay,
        )  # fmt: skip


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def _find(
    rows: Array, note: Array, slots: Array, unique: Array, block: Array, whole: Array, width: int, state: int,
    step: int, averaging: float, forget: float,
) -> int:  # fmt: skip
    """Number the distinct rows, write each slot's number, and let each row catch up in its place."""
    count = 0
    for n in range(len(rows)):
        row = rows[n]
        number = note[row]
        if number < 0:
            number = count
            note[row] = number
            unique[number] = row
            count += 1
            passed = step - whole[row, state + LAST]
            if passed > 0:
                decay = float(block[row, state + DECAY])
                p = math.exp(-decay)
                if passed <= FEW_STEPS:
                    kept, gain = 1.0, 0.0
                    forgotten = 1.0
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
                if state > width:
                    for e in range(width):
                        block[row, width + e] = block[row, width + e] * np.float32(forgotten) + block[
                            row, e
                        ] * np.float32(gain)
                for e in range(width):
                    block[row, e] *= np.float32(kept)
                whole[row, state + LAST] = step
        slots[n] = number
    return count


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def _pool(unique: Array, slots: Array, x: Array, starts: Array, block: Array, bags: Array) -> None:
    examples, fields, width = bags.shape
    n = 0
    for b in range(examples):
        for f in range(fields):
            for _ in range(starts[f], starts[f + 1]):
                factor = x[n]
                if factor != 0.0:
                    row = unique[slots[n]]
                    for e in range(width):
                        bags[b, f, e] += factor * block[row, e]
                n += 1


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def _scatter(slopes: Array, slots: Array, x: Array, starts: Array, gradient: Array) -> None:
    examples, fields, width = slopes.shape
    n = 0
    for b in range(examples):
        for f in range(fields):
            for _ in range(starts[f], starts[f + 1]):
                factor = x[n]
                if factor != 0.0:
                    number = slots[n]
                    for e in range(width):
                        gradient[number, e] += factor * slopes[b, f, e]
                n += 1


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def _move(
    gradient: Array, unique: Array, block: Array, whole: Array, state: int, step: int, rate: float, l2: float, b: float
) -> None:
    count, width = gradient.shape
    forget = math.log(b)
    for number in range(count):
        row = unique[number]
        square = 0.0
        for e in range(width):
            square += gradient[number, e] * gradient[number, e]
        moment = b * block[row, state + MOMENT] + (1.0 - b) * square / width
        times = block[row, state + COUNT] + 1.0
        scale = math.sqrt(moment / -math.expm1(times * forget)) + EPSILON
        factor = np.float32(rate / scale)
        for e in range(width):
            block[row, e] -= factor * gradient[number, e]
        block[row, state + MOMENT] = moment
        block[row, state + COUNT] = times
        block[row, state + DECAY] = 2.0 * l2 * rate / scale
        whole[row, state + LAST] = step - 1
