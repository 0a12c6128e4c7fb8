"""Compute DeepFM's loss and its gradient by hand, so that the default model is trained without autograd.

It equals `DeepFM.logits` differentiated, up to rounding (`tests/training/numba/test_deepfm_gradient.py`, in float64).
Other architectures, other devices and a CPU without numba use autograd. docs/adr/0013 has the
speed of each part.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from app.models.deepfm import DeepFM
from app.models.preprocessing import Preprocessing
from app.training.loop.dropout import DropoutMasks
from app.training.numba.field_inputs import FieldInputs
from app.training.numba.hidden_layers import GradientOf, HiddenLayers
from app.training.numba.jit import Array, fast_njit
from app.training.numba.table_kernels import NumbaRowWiseRmsprop


class DeepFmGradient:
    """Computes loss and gradient of a plain DeepFM, which crosses all pairs of fields.

    It holds views of the model's weights, so these must stay where they are in memory.
    """

    def __init__(
        self,
        model: DeepFM,
        preprocessing: Preprocessing,
        table: NumbaRowWiseRmsprop,
        gradient_of: GradientOf,
        masks: DropoutMasks,
    ) -> None:
        """Take views of the model's weights and of their gradients.

        Args:
            gradient_of: returns the view to which a parameter's gradient is written.
        """
        deep = model.deep
        self._inputs = FieldInputs(preprocessing, model.dim, table, model.across_width)
        self._layers = HiddenLayers([deep.first, *deep.rest], gradient_of, masks)
        first = deep.first.linear
        self._weight_HJ, self._bias_H = first.weight.detach(), first.bias.detach()
        self._slope_HJ = gradient_of(first.weight)
        self._output = deep.output.weight.detach().numpy().reshape(-1)
        self._output_slope: Array = gradient_of(deep.output.weight).numpy().reshape(-1)
        self._biases = [model.bias.detach().numpy(), deep.output.bias.detach().numpy()]
        self._bias_slopes = [gradient_of(model.bias).numpy(), gradient_of(deep.output.bias).numpy()]

    @torch.no_grad()
    def __call__(
        self, rows_BT: Tensor, x_OT: Tensor, labels_O: Tensor, weights_O: Tensor | None, part: slice
    ) -> tuple[float, Tensor]:
        """Compute the loss of a batch and its gradient; the gradient of dense weights is written to its place.

        Args:
            weights_O: how much each example counts; None stands for ones.

        Returns:
            The sum of the weighted losses over this process's part of the batch, and the gradient [U, E] of the
            distinct table rows, of a loss that is a mean over the whole batch.
        """
        inputs_OI, crosses_O = self._inputs.forward(rows_BT, x_OT, part)
        folded_HI = self._inputs.fold_weight(self._weight_HJ)
        hidden_OH = self._layers.forward(torch.addmm(self._bias_H, inputs_OI, folded_HI.t()))
        slope_OH, slope_O = torch.empty_like(hidden_OH), np.empty_like(crosses_O)
        bias = float(self._biases[0][0] + self._biases[1][0])
        loss, total = _loss_and_slopes(
            hidden_OH.numpy(), self._output, crosses_O, bias, labels_O.numpy(),
            (torch.ones_like(labels_O) if weights_O is None else weights_O).numpy(), 1.0 / len(rows_BT), slope_O,
            slope_OH.numpy(), self._output_slope,
        )  # fmt: skip
        for slope in self._bias_slopes:
            slope[0] = total
        slope_OH = self._layers.backward(slope_OH)
        slope_HI, slope_OI = slope_OH.t() @ inputs_OI, slope_OH @ folded_HI
        return loss, self._inputs.backward(slope_OI, slope_O, self._weight_HJ, slope_HI, self._slope_HJ)


@fast_njit
def _loss_and_slopes(
    hidden: Array, weight: Array, crosses: Array, bias: float, labels: Array, weights: Array, share: float,
    slope: Array, slope_hidden: Array, slope_weight: Array,
) -> tuple[float, float]:  # fmt: skip
    """Compute logits, weighted binary cross-entropy, and its gradient back to the last hidden layer.

    Returns the sum of the losses, and of their slopes by the logits.
    """
    examples, width = hidden.shape
    slope_weight[:] = 0
    losses, slopes = 0.0, 0.0
    for b in range(examples):
        deep = hidden.dtype.type(0)
        for h in range(width):
            deep += hidden[b, h] * weight[h]
        logit = float(deep) + float(crosses[b]) + bias
        decayed = math.exp(-abs(logit))
        losses += weights[b] * (max(logit, 0.0) - logit * labels[b] + math.log1p(decayed))
        probability = (1.0 if logit >= 0 else decayed) / (1.0 + decayed)
        logit_slope = (probability - labels[b]) * share * weights[b]
        slopes += logit_slope
        slope[b] = logit_slope
        for h in range(width):
            slope_hidden[b, h] = slope[b] * weight[h]
            slope_weight[h] += slope[b] * hidden[b, h]
    return losses, slopes
