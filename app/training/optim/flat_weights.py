"""Update all weights but the large tables as one vector, by Adam and a moving average: few operators a step.

Adam (Kingma & Ba 2015) is torch's fused kernel by its functional form: the moments are this module's, so that a
checkpoint can name them. The average is that of Polyak & Juditsky (1992), exponential and with Adam's bias correction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

BETAS, EPSILON = (0.9, 0.999), 1e-8


class FlatWeights:
    """Makes a model's parameters views of one vector each: weights, gradients, both moments, average."""

    def __init__(
        self, model: nn.Module, average: nn.Module, left_out: Sequence[nn.Parameter], decayed: set[str]
    ) -> None:
        """Move the parameters of a model, and of its average, into flat vectors.

        Args:
            average: a copy of the model, whose weights become the average; or the model itself, for none.
            left_out: parameters that other optimisers update.
            decayed: names of parameters that have an L2 term.
        """
        names = [name for name, p in model.named_parameters() if all(p is not other for other in left_out)]
        names.sort(key=lambda name: name in decayed)
        parameters = self.parameters = [model.get_parameter(name) for name in names]
        plain = sum(p.numel() for name, p in zip(names, parameters, strict=True) if name not in decayed)
        self.values = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        self.gradient = torch.zeros_like(self.values)
        self.moments = [torch.zeros_like(self.gradient) for _ in BETAS]
        self.average = self.values if average is model else self.values.clone()
        self.steps = torch.zeros((), device=self.values.device)
        self._groups = [slice(0, plain), slice(plain, len(self.values))]
        self._averaging = average is not model
        _alias(parameters, self.values)
        if self._averaging:
            _alias([average.get_parameter(name) for name in names], self.average)

    def gradient_of(self, parameter: Tensor) -> Tensor:
        """Return the view to which a parameter's gradient is written. Raises KeyError if it is not among these."""
        start = 0
        for other in self.parameters:
            if other is parameter:
                return self.gradient[start : start + other.numel()].view_as(other)
            start += other.numel()
        raise KeyError("not among these parameters")

    def copy_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Copy the parameters' gradients; None stands for zero, of a parameter that took no part."""
        pairs = zip(self.parameters, gradients, strict=True)
        flat = [torch.zeros_like(p).reshape(-1) if g is None else g.reshape(-1) for p, g in pairs]
        torch.cat(flat, out=self.gradient)

    def step(self, number: int, learning_rate: float, l2: float, averaging: float) -> None:
        """Take one step of Adam from the gradient, then update the average.

        Args:
            number: the number of this step, from 1.
            l2: factor of the sum of squares of the parameters that have an L2 term.
        """
        for group, decay in zip(self._groups, (0.0, 2 * l2), strict=True):
            if group.start == group.stop:
                continue
            # Adam's (not AdamW's) decay d adds d * w to the gradient: that of a term d / 2 * sum(w * w) in the loss.
            adam(
                [self.values[group]],
                [self.gradient[group]],
                [self.moments[0][group]],
                [self.moments[1][group]],
                [],
                [self.steps.clone()],  # which it counts on, for each group
                fused=True,
                lr=learning_rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )
        self.steps += 1
        if self._averaging:
            self.average.lerp_(self.values, (1 - averaging) / (1 - averaging**number))

    def release(self) -> None:
        """Give the model tensors of its own again, and no gradients."""
        for tensor in self.parameters:
            tensor.data = tensor.data.clone()
            tensor.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return all that a checkpoint needs, by name; the tensors are live."""
        return {
            "values": self.values,
            "first_moment": self.moments[0],
            "second_moment": self.moments[1],
            "average": self.average,
            "steps": self.steps,
        }


def _alias(parameters: Sequence[Tensor], flat: Tensor) -> None:
    """Make the tensors views of one vector, one after the other."""
    start = 0
    for tensor in parameters:
        tensor.data = flat[start : start + tensor.numel()].view_as(tensor)
        start += tensor.numel()
