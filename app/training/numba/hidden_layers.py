"""Train hidden layers forward and backward without autograd: linear maps by BLAS, the rest in one loop each.

A layer is `app.models.layers.Block`: linear, batch norm, ReLU, dropout. For a batch of 256 rows, the operators that
autograd starts between the linear maps cost more than the maps. Batch norm is that of Ioffe & Szegedy (2015),
algorithm 1, and its gradient that of their section 3.

Shape suffixes beside those of `app.models.base`: P and H are a layer's width before and after its linear map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from app.models.layers import Block, Dropout
from app.training.loop.dropout import DropoutMasks, keep_scale, keep_threshold
from app.training.numba.jit import Array, fast_njit

GradientOf = Callable[[Tensor], Tensor]
"""Returns the view to which a parameter's gradient is written."""


class HiddenLayer:
    """Computes one block. Its arrays are views of the block's own tensors, which training changes in place."""

    def __init__(self, block: Block, gradient_of: GradientOf, masks: DropoutMasks) -> None:
        self.weight_HP, self.bias_H = block.linear.weight.detach(), block.linear.bias.detach()
        self.weight_slope_HP = gradient_of(block.linear.weight)
        self._bias_slope_H: Array = gradient_of(block.linear.bias).numpy()
        self._norm = block.norm if isinstance(block.norm, nn.BatchNorm1d) else None
        p = block.dropout.p if isinstance(block.dropout, Dropout) else 0.0
        self._masks, self._threshold = masks if p > 0 else None, keep_threshold(p)
        dtype = self._bias_slope_H.dtype
        self._scale = dtype.type(keep_scale(p))
        if self._norm:
            assert self._norm.momentum is not None
            assert self._norm.running_mean is not None
            assert self._norm.running_var is not None
            self._eps, self._momentum = self._norm.eps, self._norm.momentum
            self._gamma_H, self._beta_H = self._norm.weight.detach().numpy(), self._norm.bias.detach().numpy()
            self._slopes_2H = [gradient_of(self._norm.weight).numpy(), gradient_of(self._norm.bias).numpy()]
            self._running_2H = [self._norm.running_mean.numpy(), self._norm.running_var.numpy()]
            self._moments_4H = np.empty((4, len(self._gamma_H)), dtype)

    def forward(self, linear_BH: Tensor) -> Tensor:
        """Compute the layer's output [B, H] from that of its linear map, in its memory unless there is a batch norm."""
        linear: Array = linear_BH.numpy()
        bits = self._masks.bits(linear.size) if self._masks else np.empty(0, np.uint16)
        self._linear = linear
        if not self._norm:
            self._output = linear
            _relu_dropout(linear, linear, np.empty((0, 0), linear.dtype), bits, self._threshold, self._scale)
            return linear_BH
        mean_H, variance_H = self._running_2H
        _normalise(linear, self._gamma_H, self._beta_H, self._eps, self._momentum, mean_H, variance_H, self._moments_4H)
        output_BH = torch.empty_like(linear_BH)
        self._output = output_BH.numpy()
        _relu_dropout(linear, self._output, self._moments_4H, bits, self._threshold, self._scale)
        return output_BH

    def backward(self, slope_BH: Tensor) -> Tensor:
        """Turn the gradient of the layer's output into that of its linear map's output, in the same memory."""
        slope: Array = slope_BH.numpy()
        if self._norm:
            gamma_H, beta_H = self._slopes_2H
            _backward_norm(
                slope, self._output, self._linear, self._moments_4H, self._scale, gamma_H, beta_H, self._bias_slope_H
            )
        else:
            _backward(slope, self._output, self._scale, self._bias_slope_H)
        return slope_BH


class HiddenLayers:
    """Computes several layers, one after the other. The first layer's linear map is left to the caller."""

    def __init__(self, blocks: Sequence[Block], gradient_of: GradientOf, masks: DropoutMasks) -> None:
        self._layers = [HiddenLayer(block, gradient_of, masks) for block in blocks]
        self._outputs: list[Tensor] = []

    def forward(self, linear_BH: Tensor) -> Tensor:
        """Compute the last layer's output from that of the first linear map, which is overwritten."""
        first, *others = self._layers
        output_BH = first.forward(linear_BH)
        self._outputs = [output_BH]
        for layer in others:
            output_BH = layer.forward(torch.addmm(layer.bias_H, output_BH, layer.weight_HP.t()))
            self._outputs.append(output_BH)
        return output_BH

    def backward(self, slope_BH: Tensor) -> Tensor:
        """Compute the gradient of the first linear map's output from that of the last layer's, which is overwritten.

        The gradients of all weights but the first are written to their places.
        """
        for number in range(len(self._layers) - 1, 0, -1):
            layer = self._layers[number]
            slope_BH = layer.backward(slope_BH)
            torch.mm(slope_BH.t(), self._outputs[number - 1], out=layer.weight_slope_HP)
            slope_BH = slope_BH @ layer.weight_HP
        return self._layers[0].backward(slope_BH)


@fast_njit
def _normalise(
    z: Array, gamma: Array, beta: Array, eps: float, momentum: float, running_mean: Array, running_variance: Array,
    moments: Array,
) -> None:  # fmt: skip
    """Write the moments [4, H]: mean, 1 / deviation, and the factor and the offset that batch norm amounts to."""
    examples, width = z.shape
    mean, variance, gain, offset = moments[0], moments[1], moments[2], moments[3]
    mean[:] = 0
    variance[:] = 0
    share = z.dtype.type(1.0 / examples)
    for b in range(examples):
        for h in range(width):
            mean[h] += z[b, h]
    for h in range(width):
        mean[h] *= share
    for b in range(examples):
        for h in range(width):
            difference = z[b, h] - mean[h]
            variance[h] += difference * difference
    for h in range(width):
        biased = variance[h] * share
        running_mean[h] += momentum * (mean[h] - running_mean[h])
        running_variance[h] += momentum * (variance[h] / max(examples - 1, 1) - running_variance[h])
        variance[h] = 1.0 / math.sqrt(biased + eps)
        gain[h] = gamma[h] * variance[h]
        offset[h] = beta[h] - mean[h] * gain[h]


@fast_njit
def _relu_dropout(z: Array, output: Array, moments: Array, bits: Array, threshold: int, scale: float) -> None:
    """Apply the factor and offset of a batch norm if there is one, then ReLU and dropout."""
    examples, width = z.shape
    zero = z.dtype.type(0)
    if len(moments) == 0:
        for b in range(examples):
            for h in range(width):
                output[b, h] = max(z[b, h], zero) * scale
    else:
        gain, offset = moments[2], moments[3]
        for b in range(examples):
            for h in range(width):
                output[b, h] = max(z[b, h] * gain[h] + offset[h], zero) * scale
    if len(bits) > 0:
        bits_BH = bits.reshape(examples, width)
        for b in range(examples):
            for h in range(width):
                output[b, h] = output[b, h] if bits_BH[b, h] >= threshold else zero


@fast_njit
def _backward(slope: Array, output: Array, scale: float, bias: Array) -> None:
    """Go back through dropout and ReLU: where the output is 0, one of them made it so."""
    examples, width = slope.shape
    zero = slope.dtype.type(0)
    bias[:] = 0
    for b in range(examples):
        for h in range(width):
            passed = slope[b, h] * scale if output[b, h] > zero else zero
            slope[b, h] = passed
            bias[h] += passed


@fast_njit
def _backward_norm(
    slope: Array, output: Array, z: Array, moments: Array, scale: float, gamma: Array, beta: Array, bias: Array
) -> None:
    """Go back through dropout and ReLU, then through the batch norm."""
    examples, width = slope.shape
    mean, inverse, gain = moments[0], moments[1], moments[2]
    zero, share = slope.dtype.type(0), slope.dtype.type(1.0 / examples)
    gamma[:] = 0
    beta[:] = 0
    bias[:] = 0
    for b in range(examples):
        for h in range(width):
            passed = slope[b, h] * scale if output[b, h] > zero else zero
            slope[b, h] = passed
            beta[h] += passed
            gamma[h] += passed * (z[b, h] - mean[h])
    for h in range(width):
        gamma[h] *= inverse[h]
    for b in range(examples):
        for h in range(width):
            level = (z[b, h] - mean[h]) * inverse[h]
            passed = gain[h] * (slope[b, h] - share * (beta[h] + level * gamma[h]))
            slope[b, h] = passed
            bias[h] += passed
