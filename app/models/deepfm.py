"""DeepFM (Guo et al. 2017): a factorisation machine and a deep network over the same embeddings.

    logit = w0 + sum_s w_s x_s + 1/2 sum_k (S*S - Q)_k + D([e_1 .. e_F, numerics])          (eq. 1, 2 and 4)

with e_f = sum of x_s v_s over a field's slots, S = sum_f e_f and Q = sum_f e_f*e_f. Numeric fields are slots whose x is
the number, so they take part in the crosses.

Split, exactly: FM(u, i) = FM_u + FM_i + S_u . S_i, and the first deep layer is W_u u + b + W_i i.
    user state  [ W_u u + b (H) | S_u (K) | w0 + FM_u ]        item state  [ W_i i (H) | S_i (K) | FM_i ]

Options beyond the paper are in `app.models.deepfm_variants`, and the form that is served in `app.models.serving_form`.
"""

import torch
from torch import Tensor

from app.models.base import CtrModel
from app.models.layers import SplitMlp
from app.models.mixed_dims import ProjectedPairs
from app.models.native_weights import TopMlpWeights
from app.models.pairwise import AllPairs, ChosenPairs
from app.models.preprocessing import Preprocessing


class DeepFM(CtrModel):
    """DeepFM as in the paper; see the module for its formula and split."""

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
        self.crosses: AllPairs | ChosenPairs | ProjectedPairs = AllPairs(dim)
        self.deep = SplitMlp(*self.deep_widths(), hidden, dropout, batch_norm)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        w_BF1, e_BFK = torch.split(fields_BFE, [1, self.dim], 2)
        crosses_BK: Tensor = self.crosses(e_BFK)
        deep_B: Tensor = self.deep(self.deep_inputs(e_BFK, x_BT))
        return self.bias + w_BF1.sum([1, 2]) + crosses_BK.sum(1) + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, numerics_BM = self.user_fields(keys_BS, values_BS)
        e_BFK = fields_BFE[:, :, 1:]
        hidden_BH = self.deep.user_half(self.side_deep_inputs(e_BFK, numerics_BM))
        sum_BK, crosses_BK = self.crosses.user_half(e_BFK)
        fm_B = self.bias + fields_BFE[:, :, 0].sum(1) + crosses_BK.sum(1)
        return torch.cat([hidden_BH, sum_BK, fm_B.unsqueeze(1)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, numerics_NM = self.item_fields(keys_NS, values_NS)
        e_NFK = fields_NFE[:, :, 1:]
        hidden_NH = self.deep.item_half(self.side_deep_inputs(e_NFK, numerics_NM))
        sum_NK, crosses_NK = self.crosses.item_half(e_NFK)
        fm_N = fields_NFE[:, :, 0].sum(1) + crosses_NK.sum(1)
        return torch.cat([hidden_NH, sum_NK, fm_N.unsqueeze(1)], 1)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        h = self.deep.hidden
        deep_N = self.deep.output_of_halves(user_D[:h], items_ND[:, :h])
        cross_N = torch.mv(items_ND[:, h:-1], user_D[h:-1])
        return deep_N + cross_N + items_ND[:, -1] + user_D[-1]

    def top_mlp(self) -> TopMlpWeights | None:
        layers, output = self.deep.top_weights()
        return TopMlpWeights(self.deep.hidden, self.crosses.cross_width, 1, 1, layers, output)
