"""Building blocks that several models share. Shape suffixes are explained in `app.models.base`."""

from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from app.models.native_weights import AffineWeights


class MaskSource(Protocol):
    """Draws dropout masks."""

    def __call__(self, x: Tensor, p: float) -> Tensor:
        """Draw a mask of x's shape and dtype: 0 with probability p, else 1 / (1 - p)."""


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014) whose masks come from `mask_source` where one is set, else from torch."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.mask_source: MaskSource | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop numbers of x, of any shape, in training mode; return x itself in evaluation mode."""
        return self._masked(x) if self.training and self.p > 0 else x

    @torch.jit.unused
    def _masked(self, x: Tensor) -> Tensor:
        if self.mask_source is None:
            return nn.functional.dropout(x, self.p)
        return x * self.mask_source(x, self.p)


class Block(nn.Module):
    """One hidden layer: linear, batch norm, ReLU, dropout."""

    def __init__(self, inputs: int, outputs: int, dropout: float, batch_norm: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm: nn.Module = nn.BatchNorm1d(outputs) if batch_norm else nn.Identity()
        self.dropout: nn.Module = Dropout(float(dropout))  # TorchScript refuses an int

    def forward(self, x_BD: Tensor) -> Tensor:
        """Compute the layer [B, outputs] of [B, inputs]."""
        hidden_BH: Tensor = self.dropout(torch.relu_(self.norm(self.linear(x_BD))))
        return hidden_BH

    def forward_fused(self, x_BD: Tensor) -> Tensor:
        """Compute the fused layer [B, outputs] of [B, inputs] in the precision of x."""
        if self.linear.weight.dtype == x_BD.dtype:  # even a conversion that changes nothing takes time
            return nn.functional.linear(x_BD, self.linear.weight, self.linear.bias).relu_()
        weight, bias = self.linear.weight.to(x_BD.dtype), self.linear.bias.to(x_BD.dtype)
        return nn.functional.linear(x_BD, weight, bias).relu_()

    def fuse(self) -> None:
        """Drop the dropout and fold the batch norm into the linear map, which can then be split by columns."""
        self.dropout = nn.Identity()
        if isinstance(self.norm, nn.BatchNorm1d):
            self.linear = fuse_linear_bn_eval(self.linear, self.norm)
            self.norm = nn.Identity()


class Mlp(nn.Module):
    """Hidden blocks, then a linear map."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int, dropout: float, batch_norm: bool) -> None:
        super().__init__()
        widths = (inputs, *hidden)
        self.blocks = nn.ModuleList(
            Block(block_inputs, block_outputs, dropout, batch_norm) for block_inputs, block_outputs in pairwise(widths)
        )
        self.output = nn.Linear(widths[-1], outputs)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Compute outputs [B, outputs] of [B, inputs]."""
        for block in self.blocks:
            x_BD = block(x_BD)
        output_BD: Tensor = self.output(x_BD)
        return output_BD


class SplitBlocks(nn.Module):
    """Hidden blocks whose first linear map is split: W [u, i] + b = (W_u u + b) + W_i i.

    The two terms are the halves. Methods that take halves expect batch norms to be fused. Numbers z of a pair, which
    neither side has, add a term W_z z, by which a caller raises the items' half.
    """

    def __init__(
        self,
        user_width: int,
        item_width: int,
        hidden: tuple[int, ...],
        dropout: float,
        batch_norm: bool,
        pair_width: int = 0,
    ) -> None:
        """Raise ValueError if there is no hidden layer."""
        super().__init__()
        if not hidden:
            raise ValueError("a deep part needs at least one hidden layer")
        self.user_width, self.item_width, self.pair_width = user_width, item_width, pair_width
        self.hidden = hidden[0]
        self.outputs = hidden[-1]
        self.first = Block(user_width + item_width + pair_width, hidden[0], dropout, batch_norm)
        self.rest = nn.ModuleList(Block(inputs, outputs, dropout, batch_norm) for inputs, outputs in pairwise(hidden))

    def last_hidden(self, x_BD: Tensor) -> Tensor:
        """Compute the last hidden layer [B, outputs] of [B, user width + item width + pair width]."""
        return self._rest(self.first(x_BD))

    def user_half(self, user_BD: Tensor) -> Tensor:
        """Compute W_u u + b, [B, H]."""
        return nn.functional.linear(user_BD, self.first.linear.weight[:, : self.user_width], self.first.linear.bias)

    def item_half(self, item_ND: Tensor) -> Tensor:
        """Compute W_i i, [N, H]."""
        return nn.functional.linear(item_ND, self.first.linear.weight.narrow(1, self.user_width, self.item_width))

    def with_pairs(self, items_NH: Tensor, pair_NC: Tensor) -> Tensor:
        """Add W_z z to items' halves, [N, H]; they stay as they are where pairs have no numbers."""
        if self.pair_width == 0:
            return items_NH
        columns = self.first.linear.weight.narrow(1, self.user_width + self.item_width, self.pair_width)
        return items_NH + nn.functional.linear(pair_NC, columns)

    def last_hidden_of_halves(self, user_H: Tensor, items_NH: Tensor) -> Tensor:
        """Compute the last hidden layer [N, outputs] of one user's half with N items' halves."""
        return self._rest(torch.relu_(items_NH + user_H))

    def last_hidden_of_halves_(self, user_H: Tensor, items_NH: Tensor) -> Tensor:
        """Compute `last_hidden_of_halves` in the memory and the precision of `items_NH`.

        For 500 candidates that memory is half a megabyte.
        """
        hidden_NH = items_NH.add_(user_H).relu_()
        for block in self.rest:
            hidden_NH = block.forward_fused(hidden_NH)  # type: ignore[operator]
        return hidden_NH

    def _rest(self, hidden_BH: Tensor) -> Tensor:
        for block in self.rest:
            hidden_BH = block(hidden_BH)
        return hidden_BH


class SplitMlp(SplitBlocks):
    """D(): split hidden blocks and one output."""

    def __init__(
        self,
        user_width: int,
        item_width: int,
        hidden: tuple[int, ...],
        dropout: float,
        batch_norm: bool,
        pair_width: int = 0,
    ) -> None:
        """Raise ValueError if there is no hidden layer."""
        super().__init__(user_width, item_width, hidden, dropout, batch_norm, pair_width)
        self.output = nn.Linear(hidden[-1], 1)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Compute outputs [B] of [B, user width + item width + pair width]."""
        output_B1: Tensor = self.output(self.last_hidden(x_BD))
        return output_B1.squeeze(-1)

    def output_of_halves(self, user_H: Tensor, items_NH: Tensor) -> Tensor:
        """Compute the outputs [N] of one user's half with N items' halves."""
        output_N1: Tensor = self.output(self.last_hidden_of_halves(user_H, items_NH))
        return output_N1.squeeze(-1)

    def top_weights(self) -> tuple[list[AffineWeights], AffineWeights]:
        """Return the fused hidden layers after the first, and the output layer, for `TopMlpWeights`."""
        layers: list[AffineWeights] = []
        for block in self.rest:
            linear: nn.Linear = block.linear  # type: ignore[assignment]
            layers += [AffineWeights(linear.weight, linear.bias)]
        return layers, AffineWeights(self.output.weight, self.output.bias)
