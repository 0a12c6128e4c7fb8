"""Compute the inputs of DeepFM's first layer from a batch's slots, and the gradient of the table's rows from theirs.

The vector of a numeric field is its number x times one table row v. W_f (x v) is x (W_f v), so the first layer can take
the number itself, with W_f v added to its column. The inputs are then the vectors of all other fields and each number
once. The numbers a of target statistics across sides are inputs of the first layer and have no row.

    inputs [ e_1 .. e_C | a_1 .. a_A | x_1 .. x_M | zeros ]        crosses = sum_f w_f + 1/2 sum_k (S*S - Q)_k

The zeros make the width a multiple of 16, at which a product of matrices takes a fifth less time.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from app.features.fields import SIDES
from app.models.preprocessing import Preprocessing
from app.training.numba.jit import Array, fast_njit
from app.training.numba.table_kernels import NumbaRowWiseRmsprop

WIDTH_MULTIPLE = 16


class FieldInputs:
    """Computes the first layer's inputs and the crosses, and their gradients.

    Shape suffixes beside those of `app.models.base`: O examples of this process's part of a batch, P slots that are not
    numeric, C fields that are not, M numeric fields, A numbers across sides, I inputs, J inputs of the model's own
    first layer, E = 1 + K, U distinct table rows of a batch, of which the first M are those of the numeric fields.
    """

    def __init__(
        self, preprocessing: Preprocessing, dim: int, table: NumbaRowWiseRmsprop, across_width: int = 0
    ) -> None:
        """Find each input's place.

        Args:
            across_width: A; these numbers are the last of each example's.
        """
        self._table, self._dim = table, dim
        other_slots: list[int] = []
        numeric_slots: list[int] = []
        starts, numeric_rows = [0], []
        embedding_columns: list[int] = []
        number_columns: list[int] = []
        vector_columns: list[list[int]] = []
        column = 0
        for side in SIDES:
            layout = preprocessing.layout(side)
            numeric = {*(field.name for field in layout.numerics), *layout.statistics}
            for name in layout.vectors:
                slots, columns = preprocessing.vectors[name], list(range(column, column + dim))
                if name in numeric:
                    numeric_slots.append(slots.start)
                    vector_columns.append(columns)
                    numeric_rows.append(preprocessing.number_row(side, name))
                else:
                    other_slots += range(slots.start, slots.stop)
                    starts.append(len(other_slots))
                    embedding_columns += columns
                column += dim
            number_columns += range(column, column + len(numeric))
            column += len(numeric)
        self._across_width = across_width
        across_columns = range(column, column + across_width)
        self._slots_P, self._numeric_slots_M = np.array(other_slots, np.int64), np.array(numeric_slots, np.int64)
        self._starts_C = np.array(starts, np.int64)
        self._numeric_rows_M = np.array(numeric_rows, np.int64)
        self._input_columns = np.array([*embedding_columns, *across_columns, *number_columns], np.int64)
        """The column of the model's first layer that each input has."""
        self._vector_columns_MK = np.array(vector_columns, np.int64).reshape(len(numeric_rows), dim)
        """The columns of the model's first layer that each numeric field's vector has."""
        self.width = -(-len(self._input_columns) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
        self._v_ME: Array = table.weights_UE

    def forward(self, rows_BT: Tensor, x_OT: Tensor, part: slice) -> tuple[Tensor, Array]:
        """Compute the inputs [O, I] and the crosses [O] of a part of a batch, all of whose rows are looked up."""
        table = self._table
        self._index_OP = table.look_up(rows_BT, self._slots_P, self._numeric_rows_M)[part]
        self._x_OT: Array = x_OT.numpy()
        self._v_ME = table.weights_UE[: len(self._numeric_rows_M)]
        examples = len(self._index_OP)
        inputs_OI = torch.empty(examples, self.width, dtype=x_OT.dtype)
        self._inputs_OI: Array = inputs_OI.numpy()
        self._sums_OE = np.empty((examples, self._dim + 1), self._v_ME.dtype)
        crosses_O = np.empty(examples, self._v_ME.dtype)
        _forward(
            table.weights_UE, self._index_OP, self._x_OT, self._slots_P, self._starts_C, self._numeric_slots_M,
            self._across_width, self._inputs_OI, self._sums_OE, crosses_O,
        )  # fmt: skip
        return inputs_OI, crosses_O

    def fold_weight(self, weight_HJ: Tensor) -> Tensor:
        """Return the first layer's weight as these inputs take it [H, I]; call it after `forward`."""
        folded_HI = torch.empty(len(weight_HJ), self.width, dtype=weight_HJ.dtype)
        _fold(weight_HJ.numpy(), self._input_columns, self._vector_columns_MK, self._v_ME, folded_HI.numpy())
        return folded_HI

    def backward(
        self, slope_OI: Tensor, slope_O: Array, weight_HJ: Tensor, slope_HI: Tensor, slope_HJ: Tensor
    ) -> Tensor:
        """Compute the gradient [U, E] of the distinct rows.

        Args:
            slope_OI, slope_O, slope_HI: gradients of the inputs, of the crosses and of the folded weight.
            slope_HJ: where the gradient of the first layer's weight is written.
        """
        gradient_UE = self._table.zero_gradient()
        _unfold(
            slope_HI.numpy(), self._input_columns, self._vector_columns_MK, weight_HJ.numpy(), self._v_ME,
            slope_HJ.numpy(), gradient_UE,
        )  # fmt: skip
        _backward(
            slope_OI.numpy(), slope_O, self._index_OP, self._x_OT, self._slots_P, self._starts_C,
            self._numeric_slots_M, self._v_ME, self._inputs_OI, self._sums_OE, gradient_UE,
        )  # fmt: skip
        return torch.from_numpy(gradient_UE)


@fast_njit
def _forward(
    weights: Array, index: Array, x: Array, slots: Array, starts: Array, numeric_slots: Array, across: int,
    inputs: Array, sums: Array, crosses: Array,
) -> None:  # fmt: skip
    """Write inputs, sums [O, E] of each example's field vectors, and crosses."""
    examples, width = sums.shape
    fields, dim = len(starts) - 1, width - 1
    first_across, first_number = x.shape[1] - across, fields * dim + across
    zero, half = weights.dtype.type(0), weights.dtype.type(0.5)
    squares = np.zeros(len(numeric_slots), weights.dtype)
    for m in range(len(numeric_slots)):  # their rows have the first indices
        for k in range(1, width):
            squares[m] += weights[m, k] * weights[m, k]
    e = np.empty(width, weights.dtype)
    for b in range(examples):
        sums[b] = zero
        square = zero
        for f in range(fields):
            e[:] = zero
            for p in range(starts[f], starts[f + 1]):
                factor = x[b, slots[p]]
                if factor != zero:
                    row = index[b, p]
                    for k in range(width):
                        e[k] += factor * weights[row, k]
            sums[b, 0] += e[0]
            for k in range(dim):
                inputs[b, f * dim + k] = e[1 + k]
                sums[b, 1 + k] += e[1 + k]
                square += e[1 + k] * e[1 + k]
        for m in range(len(numeric_slots)):
            factor = x[b, numeric_slots[m]]
            inputs[b, first_number + m] = factor
            for k in range(width):
                sums[b, k] += factor * weights[m, k]
            square += factor * factor * squares[m]
        inputs[b, fields * dim : first_number] = x[b, first_across:]
        inputs[b, first_number + len(numeric_slots) :] = zero
        total = zero
        for k in range(1, width):
            total += sums[b, k] * sums[b, k]
        crosses[b] = sums[b, 0] + half * (total - square)


@fast_njit
def _backward(
    slopes: Array, cross_slopes: Array, index: Array, x: Array, slots: Array, starts: Array, numeric_slots: Array,
    v: Array, inputs: Array, sums: Array, gradient: Array,
) -> None:  # fmt: skip
    """Add to each row's gradient.

    d / d e_f is the crosses' slope times (S - e_f) plus the inputs' slope; d / d w_f is the crosses' slope.
    """
    examples, width = sums.shape
    fields, dim = len(starts) - 1, width - 1
    zero = v.dtype.type(0)
    e = np.empty(width, v.dtype)
    for b in range(examples):
        slope = cross_slopes[b]
        e[0] = slope
        for f in range(fields):
            for k in range(dim):
                e[1 + k] = slope * (sums[b, 1 + k] - inputs[b, f * dim + k]) + slopes[b, f * dim + k]
            for p in range(starts[f], starts[f + 1]):
                factor = x[b, slots[p]]
                if factor != zero:
                    row = index[b, p]
                    for k in range(width):
                        gradient[row, k] += factor * e[k]
        for m in range(len(numeric_slots)):  # their rows have the first indices
            factor = x[b, numeric_slots[m]]
            part = slope * factor
            gradient[m, 0] += part
            for k in range(1, width):
                gradient[m, k] += part * (sums[b, k] - factor * v[m, k])


@fast_njit
def _fold(weight: Array, input_columns: Array, vector_columns: Array, v: Array, folded: Array) -> None:
    """Gather the inputs' columns, and add W_f v to each number's."""
    inputs, (numbers, dim) = len(input_columns), vector_columns.shape
    zero = weight.dtype.type(0)
    for h in range(len(weight)):
        for i in range(inputs):
            folded[h, i] = weight[h, input_columns[i]]
        for m in range(numbers):
            for k in range(dim):
                folded[h, inputs - numbers + m] += weight[h, vector_columns[m, k]] * v[m, 1 + k]
        folded[h, inputs:] = zero


@fast_njit
def _unfold(
    folded_slope: Array, input_columns: Array, vector_columns: Array, weight: Array, v: Array, slope: Array,
    gradient: Array,
) -> None:  # fmt: skip
    """Scatter the folded weight's gradient to the weight's columns, and to the rows v of the numeric fields."""
    inputs, (numbers, dim) = len(input_columns), vector_columns.shape
    for h in range(len(weight)):
        for i in range(inputs):
            slope[h, input_columns[i]] = folded_slope[h, i]
        for m in range(numbers):
            part = folded_slope[h, inputs - numbers + m]
            for k in range(dim):
                slope[h, vector_columns[m, k]] = part * v[m, 1 + k]
                gradient[m, 1 + k] += part * weight[h, vector_columns[m, k]]
