"""The form in which a model is served: starting an operator for one request costs more than what it computes."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from app.models.base import CtrModel
from app.models.deepfm import DeepFM
from app.models.layers import Block
from app.models.native_weights import UserAffineWeights


def serving_form(model: CtrModel) -> CtrModel:
    """Return a copy of the model to be exported: float32 on the CPU, in evaluation mode, without gradients.

    Dropout is gone and batch norms are folded into the linear maps before them. A plain DeepFM becomes `ServedDeepFM`.
    """
    served = copy.deepcopy(model).cpu().float().eval()
    for module in served.modules():
        if isinstance(module, Block):
            module.fuse()
    if type(served) is DeepFM and not served.has_across:
        served = ServedDeepFM(served)
    return served.requires_grad_(False).eval()


class ServedDeepFM(DeepFM):
    """DeepFM with half the operators a request: one affine map for the user, and scores computed in place.

    All that is linear in the user state [W_u u + b | S_u | w0 + first order] is one map of the user's field vectors and
    numbers. Scores are computed in the memory and the precision of the gathered item states.
    """

    user_weight_DI: Tensor
    user_bias_D: Tensor

    @torch.no_grad()
    def __init__(self, fused: DeepFM) -> None:
        """Take over the parts of a DeepFM whose blocks are fused."""
        nn.Module.__init__(self)
        self.dim = fused.dim
        self.register_buffer("vocabulary_V", fused.vocabulary_V)
        self.register_buffer("calibration_2", fused.calibration_2)
        self.user, self.item = fused.user, fused.item
        self.across, self.has_across, self.across_width = fused.across, fused.has_across, fused.across_width
        self.table_RE, self.bias = fused.table_RE, fused.bias
        self.crosses, self.deep = fused.crosses, fused.deep

        fields, k, h, first = self.user.fields, self.dim, self.deep.hidden, self.deep.first.linear
        embedded = fields * (1 + k)
        weight_DI = torch.zeros(h + k + 1, embedded + self.user.numeric_fields, dtype=first.weight.dtype)
        weight_DFE = weight_DI[:, :embedded].view(-1, fields, 1 + k)
        weight_DFE[:h, :, 1:] = first.weight[:, : fields * k].reshape(h, fields, k)
        weight_DFE[h : h + k, :, 1:] = torch.eye(k).unsqueeze(1)
        weight_DFE[h + k, :, 0] = 1.0
        weight_DI[:h, embedded:] = first.weight[:, fields * k : self.deep.user_width]
        self.register_buffer("user_weight_DI", weight_DI)
        self.register_buffer("user_bias_D", torch.cat([first.bias, torch.zeros(k, dtype=first.bias.dtype), self.bias]))

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, numerics_BM = self.user_fields(keys_BS, values_BS)
        h, k = self.deep.hidden, self.dim
        inputs_BI = fields_BFE.flatten(1)
        if self.user.numeric_fields > 0:
            inputs_BI = torch.cat([inputs_BI, numerics_BM], 1)
        state_BD = linear(inputs_BI, self.user_weight_DI, self.user_bias_D)
        e_BFK, sum_BK = fields_BFE.narrow(2, 1, k), state_BD.narrow(1, h, k)
        state_BD.select(1, h + k).add_((sum_BK * sum_BK).sum(1) - (e_BFK * e_BFK).sum([1, 2]), alpha=0.5)
        return state_BD

    def user_affine(self) -> UserAffineWeights | None:
        if self.user.has_statistics:
            return None  # the compiled encoder knows the numbers that the schema declares, and no others
        return UserAffineWeights(self.user_weight_DI, self.user_bias_D, self.deep.hidden, self.dim)

    def score_rows(self, user_D: Tensor, states_CD: Tensor, rows_N: Tensor) -> Tensor:
        return self._score_(user_D, states_CD.index_select(0, rows_N))

    def score_users(self, users_UD: Tensor, items_PD: Tensor, counts: list[int]) -> Tensor:
        owner_P = torch.repeat_interleave(torch.tensor(counts, device=users_UD.device))
        return self._score_(users_UD.index_select(0, owner_P), items_PD)

    def _score_(self, user: Tensor, items_ND: Tensor) -> Tensor:
        """Compute logits [N] in the memory and the precision of `items_ND`.

        Args:
            user: the state of one user [D], or of one user for each item [N, D].
        """
        h, k = self.deep.hidden, self.dim
        hidden_NH: Tensor = self.deep.last_hidden_of_halves_(user.narrow(-1, 0, h), items_ND.narrow(1, 0, h))
        rest_NC = items_ND.narrow(1, h, k + 1)
        if items_ND.dtype != user.dtype:
            # What is left is cheap, and summed in full precision: scores rounded to bfloat16 would tie.
            hidden_NH, rest_NC = hidden_NH.to(user.dtype), rest_NC.to(user.dtype)
        bias_N = rest_NC.select(1, k) + user.select(-1, h + k)
        deep_N = torch.addmv(bias_N, hidden_NH, self.deep.output.weight.select(0, 0)) + self.deep.output.bias
        cross_NK, user_K = rest_NC.narrow(1, 0, k), user.narrow(-1, h, k)
        if user.dim() == 1:
            return torch.addmv(deep_N, cross_NK, user_K)
        return deep_N + (cross_NK * user_K).sum(1)
