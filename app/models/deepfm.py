"""DeepFM (Guo et al. 2017): a factorisation machine and a deep network over the same embeddings.

    logit = w0 + sum_s w_s x_s + 1/2 sum_k (S*S - Q)_k + D([e_1 .. e_F, numerics])          (eq. 1, 2 and 4)

with e_f = sum of x_s v_s over a field's slots, S = sum_f e_f and Q = sum_f e_f*e_f. Numeric fields are slots whose x is
the number, so they take part in the crosses.

Split, exactly: FM(u, i) = FM_u + FM_i + S_u . S_i, and the first deep layer is W_u u + b + W_i i.
    user state  [ W_u u + b (H) | S_u (K) | w0 + FM_u ]        item state  [ W_i i (H) | S_i (K) | FM_i ]
"""

import torch
from torch import Tensor

from app.models.contract import CtrModel, fm_half
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
    ) -> None:
        super().__init__(preprocessing, dim)
        user_width, item_width = self.deep_widths()
        self.deep = SplitMlp(user_width, item_width, hidden, dropout, batch_norm)

    def logits(self, rows_BT: Tensor, x_BT: Tensor) -> Tensor:
        fields_BFE = self.fields(rows_BT, x_BT)
        _, fm_B = fm_half(fields_BFE)
        deep_B: Tensor = self.deep(self.deep_inputs(fields_BFE, x_BT))
        return self.bias + fm_B + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, numerics_BM = self.user_fields(keys_BS, values_BS)
        sum_BK, fm_B = fm_half(fields_BFE)
        hidden_BH = self.deep.user_half(torch.cat([fields_BFE[:, :, 1:].flatten(1), numerics_BM], 1))
        return torch.cat([hidden_BH, sum_BK, (self.bias + fm_B).unsqueeze(1)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, numerics_NM = self.item_fields(keys_NS, values_NS)
        sum_NK, fm_N = fm_half(fields_NFE)
        hidden_NH = self.deep.item_half(torch.cat([fields_NFE[:, :, 1:].flatten(1), numerics_NM], 1))
        return torch.cat([hidden_NH, sum_NK, fm_N.unsqueeze(1)], 1)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        h, k = self.deep.hidden, self.dim
        deep_N = self.deep.joined(user_D[:h], items_ND[:, :h])
        crosses_N = torch.mv(items_ND[:, h : h + k], user_D[h : h + k])
        return deep_N + crosses_N + items_ND[:, h + k] + user_D[h + k]
