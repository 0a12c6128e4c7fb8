"""Building blocks that several models share. Shape suffixes are explained in `app.models.base`."""

from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval


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
    """Linear, batch norm, ReLU, dropout: one hidden layer."""

    def __init__(self, inputs: int, outputs: int, dropout: float, batch_norm: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm: nn.Module = nn.BatchNorm1d(outputs) if batch_norm else nn.Identity()
        self.dropout: nn.Module = Dropout(float(dropout))  # TorchScript refuses an int

    def forward(self, x_BD: Tensor) -> Tensor:
        return self.after(self.linear(x_BD))

    def after(self, linear_BH: Tensor) -> Tensor:
        """What follows the linear map, for callers that split the map itself."""
        hidden_BH: Tensor = self.dropout(torch.relu_(self.norm(linear_BH)))
        return hidden_BH

    def served(self, x_BD: Tensor) -> Tensor:
        """What is left of the block once it is fused, in the precision of `x`."""
        if self.linear.weight.dtype == x_BD.dtype:  # asked, because a conversion that changes nothing takes time too
            return nn.functional.linear(x_BD, self.linear.weight, self.linear.bias).relu_()
        weight, bias = self.linear.weight.to(x_BD.dtype), self.linear.bias.to(x_BD.dtype)
        return nn.functional.linear(x_BD, weight, bias).relu_()

    def fuse(self) -> None:
        """For serving: no dropout, and batch norm folded into the linear map, so that it can be split by columns."""
        self.dropout = nn.Identity()
        if isinstance(self.norm, nn.BatchNorm1d):
            self.linear = fuse_linear_bn_eval(self.linear, self.norm)
            self.norm = nn.Identity()


class Mlp(nn.Module):
    """Hidden blocks, then a linear map."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int, dropout: float, batch_norm: bool) -> None:
        super().__init__()
        widths = (inputs, *hidden)
        self.blocks = nn.ModuleList(Block(before, after, dropout, batch_norm) for before, after in pairwise(widths))
        self.output = nn.Linear(widths[-1], outputs)

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, inputs] to [B, outputs]."""
        for block in self.blocks:
            x_BD = block(x_BD)
        output_BD: Tensor = self.output(x_BD)
        return output_BD


class SplitBlocks(nn.Module):
    """Hidden blocks whose first linear map is split W [u, i] = W_u u + W_i i + b."""

    def __init__(
        self, user_width: int, item_width: int, hidden: tuple[int, ...], dropout: float, batch_norm: bool
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("a deep part needs at least one hidden layer")
        self.user_width = user_width
        self.hidden = hidden[0]
        self.outputs = hidden[-1]
        self.first = Block(user_width + item_width, hidden[0], dropout, batch_norm)
        self.rest = nn.ModuleList(Block(inputs, outputs, dropout, batch_norm) for inputs, outputs in pairwise(hidden))

    def whole(self, x_BD: Tensor) -> Tensor:
        """[B, user width + item width] to the last hidden layer [B, outputs]."""
        return self._later(self.first(x_BD))

    def user_half(self, user_BD: Tensor) -> Tensor:
        """W_u u + b, [B, H]."""
        return nn.functional.linear(user_BD, self.first.linear.weight[:, : self.user_width], self.first.linear.bias)

    def item_half(self, item_ND: Tensor) -> Tensor:
        """W_i i, [N, H]."""
        return nn.functional.linear(item_ND, self.first.linear.weight[:, self.user_width :])

    def halves(self, user_H: Tensor, items_NH: Tensor) -> Tensor:
        """The last hidden layer [N, outputs] of one user's half with N items' halves. Expects batch norms fused."""
        return self._later(torch.relu_(items_NH + user_H))

    def halves_(self, user_H: Tensor, items_NH: Tensor) -> Tensor:
        """The same in the memory of `items_NH`, half a megabyte for 500 candidates, and in its precision."""
        hidden_NH = items_NH.add_(user_H).relu_()
        for block in self.rest:
            hidden_NH = block.served(hidden_NH)  # type: ignore[operator]
        return hidden_NH

    def _later(self, hidden_BH: Tensor) -> Tensor:
        for block in self.rest:
            hidden_BH = block(hidden_BH)
        return hidden_BH


class SplitMlp(SplitBlocks):
    """D(): split hidden blocks and one output."""

    def __init__(
        self, user_width: int, item_width: int, hidden: tuple[int, ...], dropout: float, batch_norm: bool
    ) -> None:
        super().__init__(user_width, item_width, hidden, dropout, batch_norm)
        self.output = nn.Linear(hidden[-1], 1)

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, user width + item width] to [B]."""
        output_B1: Tensor = self.output(self.whole(x_BD))
        return output_B1.squeeze(-1)

    def joined(self, user_H: Tensor, items_NH: Tensor) -> Tensor:
        """The outputs [N] of one user's half with N items' halves. Expects batch norms fused."""
        output_N1: Tensor = self.output(self.halves(user_H, items_NH))
        return output_N1.squeeze(-1)

    def tail(self, across: int, own: int) -> list[Tensor]:
        """What `CtrModel.tail` returns of states [hidden | across | own]. Expects batch norms fused."""
        parts = [torch.tensor([self.hidden, across, own, own])]
        for block in self.rest:
            linear: nn.Linear = block.linear  # type: ignore[assignment]
            parts.extend([linear.weight, linear.bias])
        parts.extend([self.output.weight, self.output.bias])
        return parts
