"""What DeepFM makes of its field vectors, with a gradient written by hand: in training it is half of the model's time.

The operators of the formula, differentiated one by one, write a tensor as large as the field vectors ten times a step.
"""

from typing import Any

import torch
from torch import Tensor


class Head(torch.autograd.Function):
    """Field vectors to the deep part's input and the factorisation machine without w0 (Rendle 2010, lemma 3.1)."""

    @staticmethod
    def forward(
        ctx: Any, fields_BFE: Tensor, user_BM: Tensor, item_BM: Tensor, user_fields: int
    ) -> tuple[Tensor, Tensor]:
        """[B, D], each side's embeddings and then its numerics, and [B]."""
        e_BFK = fields_BFE[:, :, 1:]
        inputs_BD = torch.cat(
            [e_BFK[:, :user_fields].flatten(1), user_BM, e_BFK[:, user_fields:].flatten(1), item_BM], 1
        )
        sum_BK = e_BFK.sum(1)
        crossed_B = (sum_BK * sum_BK).sum(1).sub_((e_BFK * e_BFK).sum([1, 2])).mul_(0.5)
        ctx.save_for_backward(fields_BFE, sum_BK)
        ctx.user_fields, ctx.user_numbers = user_fields, user_BM.shape[1]
        return inputs_BD, crossed_B.add_(fields_BFE[:, :, 0].sum(1))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        """d / d e_f = slope of the crosses times (S - e_f), and its part of the input's slope; d / d w_f the slope."""
        inputs_BD, crossed_B = slopes
        fields_BFE, sum_BK = ctx.saved_tensors
        u, (examples, fields, width) = ctx.user_fields, fields_BFE.shape
        slope_BFE = torch.empty_like(fields_BFE)
        slope_BFE[:, :, 0] = crossed_B.unsqueeze(1)
        e_BFK = slope_BFE[:, :, 1:]
        torch.sub(sum_BK.unsqueeze(1), fields_BFE[:, :, 1:], out=e_BFK)
        e_BFK.mul_(crossed_B.view(-1, 1, 1))
        user, item = u * (width - 1), (fields - u) * (width - 1)
        start = user + ctx.user_numbers
        e_BFK[:, :u] += inputs_BD[:, :user].reshape(examples, u, width - 1)
        e_BFK[:, u:] += inputs_BD[:, start : start + item].reshape(examples, fields - u, width - 1)
        return slope_BFE, None, None, None
