"""DeepFM's loss and its gradient, written out: a step of the flagship without autograd.

The same as `DeepFM.logits` differentiated, up to rounding (`tests/training/numba/test_deepfm_gradient.py`, float64).
Other architectures, other devices and a processor without numba go by autograd.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from app.models.deepfm import DeepFM
from app.models.side_input import Preprocessing
from app.training.loop.dropout import DropoutMasks
from app.training.numba.field_inputs import FieldInputs
from app.training.numba.hidden_layers import GradientOf, HiddenLayers
from app.training.numba.prefetch import Array, fast
from app.training.numba.table_kernels import NumbaRowWiseRmsprop


class DeepFmGradient:
    """Holds views of the model's weights: good for as long as they stay where they are."""

    def __init__(
        self,
        model: DeepFM,
        preprocessing: Preprocessing,
        table: NumbaRowWiseRmsprop,
        gradient_of: GradientOf,
        masks: DropoutMasks,
    ) -> None:
        """Of a model that crosses all pairs, summed (`DeepFM.all_pairs`)."""
        deep = model.deep
        self._inputs = FieldInputs(preprocessing, model.dim, table)
        self._layers = HiddenLayers([deep.first, *deep.rest], gradient_of, masks)
        first = deep.first.linear
        self._weight_HJ, self._bias_H = first.weight.detach(), first.bias.detach()
        self._slope_HJ = gradient_of(first.weight)
        self._output = deep.output.weight.detach().numpy().reshape(-1)
        self._output_slope: Array = gradient_of(deep.output.weight).numpy().reshape(-1)
        self._biases = [model.bias.detach().numpy(), deep.output.bias.detach().numpy()]
        self._bias_slopes = [gradient_of(model.bias).numpy(), gradient_of(deep.output.bias).numpy()]

    @torch.no_grad()
    def __call__(self, rows_BT: Tensor, x_OT: Tensor, labels_O: Tensor, own: slice) -> tuple[float, Tensor]:
        """The sum of the losses of this process's part O of a batch, and the gradient [U, E] of the distinct table
        rows, of a loss that is a mean over the whole batch; that of all other weights is written to its place."""
        inputs_OI, crossed_O = self._inputs.forward(rows_BT, x_OT, own)
        folded_HI = self._inputs.folded(self._weight_HJ)
        hidden_OH = self._layers.forward(torch.addmm(self._bias_H, inputs_OI, folded_HI.t()))
        slope_OH, slope_O = torch.empty_like(hidden_OH), np.empty_like(crossed_O)
        bias = float(self._biases[0][0] + self._biases[1][0])
        loss, total = _judge(
            hidden_OH.numpy(), self._output, crossed_O, bias, labels_O.numpy(), 1.0 / len(rows_BT), slope_O,
            slope_OH.numpy(), self._output_slope,
        )  # fmt: skip
        for slope in self._bias_slopes:
            slope[0] = total
        slope_OH = self._layers.backward(slope_OH)
        slope_HI, slope_OI = slope_OH.t() @ inputs_OI, slope_OH @ folded_HI
        return loss, self._inputs.backward(slope_OI, slope_O, self._weight_HJ, slope_HI, self._slope_HJ)


@fast
def _judge(
    hidden: Array, weight: Array, crossed: Array, bias: float, labels: Array, share: float, slope: Array,
    slope_hidden: Array, slope_weight: Array,
) -> tuple[float, float]:  # fmt: skip
    """Logits, binary cross-entropy and the way back to the last hidden layer; sums of the losses and of the slopes."""
    examples, width = hidden.shape
    slope_weight[:] = 0
    losses, slopes = 0.0, 0.0
    for b in range(examples):
        deep = hidden.dtype.type(0)
        for h in range(width):
            deep += hidden[b, h] * weight[h]
        logit = float(deep) + float(crossed[b]) + bias
        small = math.exp(-abs(logit))
        losses += max(logit, 0.0) - logit * labels[b] + math.log1p(small)
        clicked = (1.0 if logit >= 0 else small) / (1.0 + small)
        apart = (clicked - labels[b]) * share
        slopes += apart
        slope[b] = apart
        for h in range(width):
            slope_hidden[b, h] = slope[b] * weight[h]
            slope_weight[h] += slope[b] * hidden[b, h]
    return losses, slopes
