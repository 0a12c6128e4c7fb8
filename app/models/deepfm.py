"""DeepFM (Guo et al. 2017): a factorisation machine and a deep network over the same embeddings.

    logit = w0 + sum_s w_s x_s + 1/2 sum_k (S*S - Q)_k + D([e_1 .. e_F, numerics])          (eq. 1, 2 and 4)

with e_f = sum of x_s v_s over a field's slots, S = sum_f e_f and Q = sum_f e_f*e_f. Numeric fields are slots whose x is
the number, so they take part in the crosses. Two options: `crosses` sums chosen pairs of fields and not all of them;
`element_wise` also feeds the crosses, unsummed, to D, inner and element-wise products together (as Qu et al. 2016 do).

Split, exactly: FM(u, i) = FM_u + FM_i + S_u . S_i, and the first deep layer is W_u u + b + W_i i.
    user state  [ W_u u + b (H) | S_u (K) | w0 + FM_u ]        item state  [ W_i i (H) | S_i (K) | FM_i ]
Chosen pairs put K columns for each crossed item field in the place of S. Of element-wise products the first layer takes
W_p (f_u + f_i + S_u * S_i): the first two are in the halves, the last is S_i times the matrix W_p diag(S_u).
"""

import torch
from torch import Tensor

from app.models.contract import CtrModel
from app.models.crosses import Crosses, Pairs, field_crosses
from app.models.inputs import Preprocessing
from app.models.layers import SplitMlp


class DeepFM(CtrModel):
    name = "deepfm"

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 8,
        hidden: tuple[int, ...] = (128, 64),
        dropout: float = 0.2,
        batch_norm: bool = True,
        crosses: Crosses | None = None,
        element_wise: bool = False,
    ) -> None:
        super().__init__(preprocessing, dim)
        self.crosses: Pairs = field_crosses(preprocessing.schema, dim, crosses)
        self.element_wise = element_wise
        user_width, item_width = self.deep_widths()
        self.deep = SplitMlp(user_width, item_width + dim * element_wise, hidden, dropout, batch_norm)

    def logits(self, rows_BT: Tensor, x_BT: Tensor) -> Tensor:
        fields_BFE = self.fields(rows_BT, x_BT)
        crosses_BK: Tensor = self.crosses(fields_BFE[:, :, 1:])
        inputs_BD = self.deep_inputs(fields_BFE, x_BT)
        if self.element_wise:
            inputs_BD = torch.cat([inputs_BD, crosses_BK], 1)
        deep_B: Tensor = self.deep(inputs_BD)
        return self.bias + fields_BFE[:, :, 0].sum(1) + crosses_BK.sum(1) + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, numerics_BM = self.user_fields(keys_BS, values_BS)
        across_BC, within_BK = self.crosses.user_half(fields_BFE[:, :, 1:])
        hidden_BH = self.deep.user_half(self.deep_half(fields_BFE, numerics_BM))
        if self.element_wise:
            hidden_BH = hidden_BH + torch.matmul(within_BK, self._cross_weight_HK().t())
        own_B = self.bias + fields_BFE[:, :, 0].sum(1) + within_BK.sum(1)
        return torch.cat([hidden_BH, across_BC, own_B.unsqueeze(1)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, numerics_NM = self.item_fields(keys_NS, values_NS)
        across_NC, within_NK = self.crosses.item_half(fields_NFE[:, :, 1:])
        inputs_ND = self.deep_half(fields_NFE, numerics_NM)
        if self.element_wise:
            inputs_ND = torch.cat([inputs_ND, within_NK], 1)
        own_N = fields_NFE[:, :, 0].sum(1) + within_NK.sum(1)
        return torch.cat([self.deep.item_half(inputs_ND), across_NC, own_N.unsqueeze(1)], 1)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        h, c = self.deep.hidden, self.crosses.width
        across_NC, user_C, hidden_NH = items_ND[:, h : h + c], user_D[h : h + c], items_ND[:, :h]
        if self.element_wise:
            weight_HC = self._cross_weight_HK().repeat(1, c // self.dim) * user_C
            hidden_NH = hidden_NH + torch.matmul(across_NC, weight_HC.t())
        deep_N = self.deep.joined(user_D[:h], hidden_NH)
        return deep_N + torch.mv(across_NC, user_C) + items_ND[:, h + c] + user_D[h + c]

    def _cross_weight_HK(self) -> Tensor:
        """The first layer's columns for the element-wise products, which come last."""
        return self.deep.first.linear.weight[:, -self.dim :]
