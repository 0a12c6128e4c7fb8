"""From a batch's slots to what DeepFM reads of them, and back to the table's rows, without the field vectors between.

A number's vector is the number times one row v: W_f (x v) is x (W_f v), so the first layer can take the number itself,
with W_f v added to its column. The inputs are then the vectors of all other fields and each number once.

    inputs [ e_1 .. e_C | x_1 .. x_M | zeros ]        crossed = sum_f w_f + 1/2 sum_k (S*S - Q)_k

The zeros make the width a multiple of 16, at which a product of matrices takes a fifth less time.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from app.features.fields import SIDES
from app.models.side_input import Preprocessing, numeric_key
from app.training.numba.prefetch import Array, fast
from app.training.numba.table_kernels import NumbaRowWiseRmsprop

WIDTH_OF = 16


class FieldInputs:
    """Shape suffixes beside those of `app.models.base`: P slots that are no numbers, C fields that are none,
    I inputs, J inputs of the model's own first layer, E = 1 + K, U distinct table rows of a batch."""

    def __init__(self, preprocessing: Preprocessing, dim: int, table: NumbaRowWiseRmsprop) -> None:
        self._table, self._dim = table, dim
        schema, vocabulary = preprocessing.schema, preprocessing.vocabulary_V.numpy()
        places: list[int] = []
        numbers: list[int] = []
        starts, rows = [0], []
        of_fields: list[int] = []
        of_numbers: list[int] = []
        of_vectors: list[list[int]] = []
        column = 0
        for side in SIDES:
            layout = schema.layout(side)
            numeric = {field.name for field in layout.numerics}
            for name in layout.vectors:
                slots, columns = schema.vectors[name], list(range(column, column + dim))
                if name in numeric:
                    numbers.append(slots.start)
                    of_vectors.append(columns)
                    rows.append(preprocessing.oov_rows + int(np.searchsorted(vocabulary, numeric_key(name))))
                else:
                    places += range(slots.start, slots.stop)
                    starts.append(len(places))
                    of_fields += columns
                column += dim
            of_numbers += range(column, column + len(numeric))
            column += len(numeric)
        self._places_P, self._starts_C, self._numbers_M = (np.array(n, np.int64) for n in (places, starts, numbers))
        self._rows_M = np.array(rows, np.int64)
        self._of_inputs = np.array(of_fields + of_numbers, np.int64)
        self._of_vectors_MK = np.array(of_vectors, np.int64).reshape(len(rows), dim)
        """Columns of the model's first layer: of each input, and of each number's vector."""
        self.width = -(-len(self._of_inputs) // WIDTH_OF) * WIDTH_OF
        self._v_ME: Array = table.weights

    def forward(self, rows_BT: Tensor, x_OT: Tensor, own: slice) -> tuple[Tensor, Array]:
        """Inputs [O, I] and crosses [O] of this process's part O of a batch, all of whose rows are looked up."""
        table = self._table
        self._slots_OP = table.find(rows_BT, self._places_P, self._rows_M)[own]
        self._x_OT: Array = x_OT.numpy()
        self._v_ME = table.weights[: len(self._rows_M)]
        examples = len(self._slots_OP)
        inputs_OI = torch.empty(examples, self.width, dtype=x_OT.dtype)
        self._inputs_OI: Array = inputs_OI.numpy()
        self._sums_OE = np.empty((examples, self._dim + 1), self._v_ME.dtype)
        crossed_O = np.empty(examples, self._v_ME.dtype)
        _read(
            table.weights, self._slots_OP, self._x_OT, self._places_P, self._starts_C, self._numbers_M,
            self._inputs_OI, self._sums_OE, crossed_O,
        )  # fmt: skip
        return inputs_OI, crossed_O

    def folded(self, weight_HJ: Tensor) -> Tensor:
        """The first layer's weight as these inputs take it [H, I]; after `forward`."""
        folded_HI = torch.empty(len(weight_HJ), self.width, dtype=weight_HJ.dtype)
        _fold(weight_HJ.numpy(), self._of_inputs, self._of_vectors_MK, self._v_ME, folded_HI.numpy())
        return folded_HI

    def backward(
        self, slope_OI: Tensor, crossed_O: Array, weight_HJ: Tensor, folded_HI: Tensor, slope_HJ: Tensor
    ) -> Tensor:
        """The gradient [U, E] of the distinct rows.

        Args:
            slope_OI, crossed_O, folded_HI: gradients of the inputs, of the crosses and of the folded weight.
            slope_HJ: where the gradient of the first layer's weight is written.
        """
        gradient_UE = self._table.no_gradient()
        _unfold(
            folded_HI.numpy(), self._of_inputs, self._of_vectors_MK, weight_HJ.numpy(), self._v_ME, slope_HJ.numpy(),
            gradient_UE,
        )  # fmt: skip
        _write(
            slope_OI.numpy(), crossed_O, self._slots_OP, self._x_OT, self._places_P, self._starts_C, self._numbers_M,
            self._v_ME, self._inputs_OI, self._sums_OE, gradient_UE,
        )  # fmt: skip
        return torch.from_numpy(gradient_UE)


@fast
def _read(
    weights: Array, slots: Array, x: Array, places: Array, starts: Array, numbers: Array, inputs: Array, sums: Array,
    crossed: Array,
) -> None:  # fmt: skip
    examples, width = sums.shape
    fields, dim = len(starts) - 1, width - 1
    nothing, half = weights.dtype.type(0), weights.dtype.type(0.5)
    squares = np.zeros(len(numbers), weights.dtype)
    for m in range(len(numbers)):  # whose rows have the first numbers
        for k in range(1, width):
            squares[m] += weights[m, k] * weights[m, k]
    e = np.empty(width, weights.dtype)
    for b in range(examples):
        sums[b] = nothing
        square = nothing
        for f in range(fields):
            e[:] = nothing
            for p in range(starts[f], starts[f + 1]):
                factor = x[b, places[p]]
                if factor != nothing:
                    number = slots[b, p]
                    for k in range(width):
                        e[k] += factor * weights[number, k]
            sums[b, 0] += e[0]
            for k in range(dim):
                inputs[b, f * dim + k] = e[1 + k]
                sums[b, 1 + k] += e[1 + k]
                square += e[1 + k] * e[1 + k]
        for m in range(len(numbers)):
            factor = x[b, numbers[m]]
            inputs[b, fields * dim + m] = factor
            for k in range(width):
                sums[b, k] += factor * weights[m, k]
            square += factor * factor * squares[m]
        inputs[b, fields * dim + len(numbers) :] = nothing
        total = nothing
        for k in range(1, width):
            total += sums[b, k] * sums[b, k]
        crossed[b] = sums[b, 0] + half * (total - square)


@fast
def _write(
    slopes: Array, crossed: Array, slots: Array, x: Array, places: Array, starts: Array, numbers: Array, v: Array,
    inputs: Array, sums: Array, gradient: Array,
) -> None:  # fmt: skip
    """d / d e_f = slope of the crosses times (S - e_f), and the slope of its inputs; d / d w_f the first of the two."""
    examples, width = sums.shape
    fields, dim = len(starts) - 1, width - 1
    nothing = v.dtype.type(0)
    e = np.empty(width, v.dtype)
    for b in range(examples):
        slope = crossed[b]
        e[0] = slope
        for f in range(fields):
            for k in range(dim):
                e[1 + k] = slope * (sums[b, 1 + k] - inputs[b, f * dim + k]) + slopes[b, f * dim + k]
            for p in range(starts[f], starts[f + 1]):
                factor = x[b, places[p]]
                if factor != nothing:
                    number = slots[b, p]
                    for k in range(width):
                        gradient[number, k] += factor * e[k]
        for m in range(len(numbers)):  # whose rows have the first numbers
            factor = x[b, numbers[m]]
            part = slope * factor
            gradient[m, 0] += part
            for k in range(1, width):
                gradient[m, k] += part * (sums[b, k] - factor * v[m, k])


@fast
def _fold(weight: Array, of_inputs: Array, of_vectors: Array, v: Array, folded: Array) -> None:
    inputs, (numbers, dim) = len(of_inputs), of_vectors.shape
    nothing = weight.dtype.type(0)
    for h in range(len(weight)):
        for i in range(inputs):
            folded[h, i] = weight[h, of_inputs[i]]
        for m in range(numbers):
            for k in range(dim):
                folded[h, inputs - numbers + m] += weight[h, of_vectors[m, k]] * v[m, 1 + k]
        folded[h, inputs:] = nothing


@fast
def _unfold(
    folded: Array, of_inputs: Array, of_vectors: Array, weight: Array, v: Array, slope: Array, gradient: Array
) -> None:
    inputs, (numbers, dim) = len(of_inputs), of_vectors.shape
    for h in range(len(weight)):
        for i in range(inputs):
            slope[h, of_inputs[i]] = folded[h, i]
        for m in range(numbers):
            part = folded[h, inputs - numbers + m]
            for k in range(dim):
                slope[h, of_vectors[m, k]] = part * v[m, 1 + k]
                gradient[m, 1 + k] += part * weight[h, of_vectors[m, k]]
