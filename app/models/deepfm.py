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
    has_first_order = True
    reads_across = True

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
        self.deep = SplitMlp(*self.deep_widths(), hidden, dropout, batch_norm, self.across_width)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        w_BF1, e_BFK = torch.split(fields_BFE, [1, self.dim], 2)
        crosses_BK: Tensor = self.crosses(e_BFK)
        deep_B: Tensor = self.deep(self.with_across(self.deep_inputs(e_BFK, x_BT), x_BT))
        return self.bias + w_BF1.sum([1, 2]) + crosses_BK.sum(1) + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        rows_BT, x_BT = self.user.expand(self.vocabulary_V, keys_BS, values_BS)
        fields_BFE, numerics_BM = self.user.pool(self.slot_vectors(rows_BT, x_BT)), self.user.numerics(x_BT)
        e_BFK = fields_BFE[:, :, 1:]
        hidden_BH = self.deep.user_half(self.side_deep_inputs(e_BFK, numerics_BM))
        sum_BK, crosses_BK = self.crosses.user_half(e_BFK)
        fm_B = self.bias + fields_BFE[:, :, 0].sum(1) + crosses_BK.sum(1)
        return self.with_user_rows(torch.cat([hidden_BH, sum_BK, fm_B.unsqueeze(1)], 1), rows_BT)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        rows_NT, x_NT = self.item.expand(self.vocabulary_V, keys_NS, values_NS)
        fields_NFE, numerics_NM = self.item.pool(self.slot_vectors(rows_NT, x_NT)), self.item.numerics(x_NT)
        e_NFK = fields_NFE[:, :, 1:]
        hidden_NH = self.deep.item_half(self.side_deep_inputs(e_NFK, numerics_NM))
        sum_NK, crosses_NK = self.crosses.item_half(e_NFK)
        fm_N = fields_NFE[:, :, 0].sum(1) + crosses_NK.sum(1)
        return self.with_item_rows(torch.cat([hidden_NH, sum_NK, fm_N.unsqueeze(1)], 1), rows_NT)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        user_D, items_ND, pair_NC = self.split_states(user_D, items_ND)
        h = self.deep.hidden
        deep_N = self.deep.output_of_halves(user_D[:h], self.deep.with_pairs(items_ND[:, :h], pair_NC))
        cross_N = torch.mv(items_ND[:, h:-1], user_D[h:-1])
        return deep_N + cross_N + items_ND[:, -1] + user_D[-1]

    def top_mlp(self) -> TopMlpWeights | None:
        if self.has_across:
            return None  # the compiled scorer looks nothing up
        layers, output = self.deep.top_weights()
        return TopMlpWeights(self.deep.hidden, self.crosses.cross_width, 1, 1, layers, output)
