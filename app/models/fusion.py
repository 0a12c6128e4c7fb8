"""Fusion: one output neuron over the outputs of Wide & Deep, NeuralCF, DeepFM and NFM, trained together.

    logit = w0 + sum_m a_m y_m + first order,   m in wide & deep, neural_cf, deepfm, nfm

    y_wide_deep = wide + D_1(x)                 y_neural_cf = T_u(u) . T_i(i)
    y_deepfm = 1/2 sum_k (S*S - Q)_k + D_2(x)   y_nfm = D_3(1/2 (S*S - Q))

with x = [u, i] = [e_1 .. e_F, numerics]. Formulas and papers are in the files of the four; they share the embeddings
and, as the sum of linear parts is one, the first order. NeuralCF takes part in its form with towers: a network over the
two ids over-fits long before the others have learned (sparrow58k random, validation log loss 0.5286 with it, 0.5265
with towers). a_m begins at 1/4, the mean of four models.

Split, exactly: the union of theirs.
    user state  [ D_1, D_2: W_u u + b (2 H) | T_u | S_u, f_u (2 K) | crossed slots | wide_u, FM_u, w0 + first order ]
    item state  [ D_1, D_2: W_i i (2 H) | T_i | S_i, f_i (2 K) | crossed slots | wide_i, FM_i, first order ]
"""

import torch
from torch import Tensor, nn

from app.models.base import CtrModel
from app.models.hashed_crosses import HashedCrosses
from app.models.layers import Mlp, SplitMlp
from app.models.nfm import PooledMlp
from app.models.pairwise import AllPairs
from app.models.preprocessing import Preprocessing


class Fusion(CtrModel):
    """Four models under one output neuron; see the module for its formula and split."""

    name = "fusion"
    has_first_order = True
    reads_across = True
    tables = (*CtrModel.tables, "cross_table_C1")

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 8,
        hidden: tuple[int, ...] = (128, 64),
        dropout: float = 0.2,
        batch_norm: bool = True,
    ) -> None:
        """Give all networks the layers `hidden`."""
        super().__init__(preprocessing, dim)
        self.wide = HashedCrosses(preprocessing)
        self.cross_table_C1 = nn.Parameter(torch.zeros(self.wide.rows, 1))
        self.wide_deep = SplitMlp(*self.deep_widths(), hidden, dropout, batch_norm, self.across_width)
        self.user_width, item_width = self.deep_widths()
        self.user_tower = Mlp(self.user_width, hidden[:-1], hidden[-1], dropout, batch_norm)
        self.item_tower = Mlp(item_width, hidden[:-1], hidden[-1], dropout, batch_norm)
        self.tower = hidden[-1]
        self.deepfm = SplitMlp(*self.deep_widths(), hidden, dropout, batch_norm)
        self.pairs = AllPairs(dim)
        self.nfm = PooledMlp(dim, hidden, dropout, batch_norm)
        self.joint_4 = nn.Parameter(torch.full((4,), 0.25))

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        x_BD = self.deep_inputs(fields_BFE[:, :, 1:], x_BT)
        user_BD: Tensor = self.user_tower(x_BD[:, : self.user_width])
        item_BD: Tensor = self.item_tower(x_BD[:, self.user_width :])
        f_BK: Tensor = self.pairs(fields_BFE[:, :, 1:])
        wide_B: Tensor = self.wide(self.cross_table_C1, self.vocabulary_V, rows_BT, x_BT)
        outputs_B4 = torch.stack(
            [
                wide_B + self.wide_deep(self.with_across(x_BD, x_BT)),
                (user_BD * item_BD).sum(1),
                f_BK.sum(1) + self.deepfm(x_BD),
                self.nfm(f_BK),
            ],
            1,
        )
        return self.bias + fields_BFE[:, :, 0].sum(1) + torch.mv(outputs_B4, self.joint_4)

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        rows_BT, x_BT = self.user.expand(self.vocabulary_V, keys_BS, values_BS)
        fields_BFE, numerics_BM = self.user.pool(self.slot_vectors(rows_BT, x_BT)), self.user.numerics(x_BT)
        x_BD = self.side_deep_inputs(fields_BFE[:, :, 1:], numerics_BM)
        sum_BK, f_BK = self.pairs.user_half(fields_BFE[:, :, 1:])
        wide_B, slots_BD = self.wide.user_half(self.cross_table_C1, self.vocabulary_V, rows_BT, x_BT)
        sums_B3 = torch.stack([wide_B, f_BK.sum(1), self.bias + fields_BFE[:, :, 0].sum(1)], 1)
        hidden_BH = torch.cat([self.wide_deep.user_half(x_BD), self.deepfm.user_half(x_BD), self.user_tower(x_BD)], 1)
        return self.with_user_rows(torch.cat([hidden_BH, sum_BK, f_BK, slots_BD, sums_B3], 1), rows_BT)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        rows_NT, x_NT = self.item.expand(self.vocabulary_V, keys_NS, values_NS)
        fields_NFE, numerics_NM = self.item.pool(self.slot_vectors(rows_NT, x_NT)), self.item.numerics(x_NT)
        x_ND = self.side_deep_inputs(fields_NFE[:, :, 1:], numerics_NM)
        sum_NK, f_NK = self.pairs.item_half(fields_NFE[:, :, 1:])
        wide_N, slots_ND = self.wide.item_half(self.cross_table_C1, self.vocabulary_V, rows_NT, x_NT)
        sums_N3 = torch.stack([wide_N, f_NK.sum(1), fields_NFE[:, :, 0].sum(1)], 1)
        hidden_NH = torch.cat([self.wide_deep.item_half(x_ND), self.deepfm.item_half(x_ND), self.item_tower(x_ND)], 1)
        return self.with_item_rows(torch.cat([hidden_NH, sum_NK, f_NK, slots_ND, sums_N3], 1), rows_NT)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        user_D, items_ND, pair_NC = self.split_states(user_D, items_ND)
        h, t, k = self.deepfm.hidden, 2 * self.deepfm.hidden + self.tower, self.dim
        wide_deep_N = self.wide_deep.output_of_halves(user_D[:h], self.wide_deep.with_pairs(items_ND[:, :h], pair_NC))
        deepfm_N = self.deepfm.output_of_halves(user_D[h : 2 * h], items_ND[:, h : 2 * h])
        neural_cf_N = torch.mv(items_ND[:, 2 * h : t], user_D[2 * h : t])
        user_D, items_ND = user_D[t:], items_ND[:, t:]
        cross_NK = items_ND[:, :k] * user_D[:k]
        nfm_N: Tensor = self.nfm(cross_NK + items_ND[:, k : 2 * k] + user_D[k : 2 * k])
        wide_N = self.wide.score_across(self.cross_table_C1, user_D[2 * k : -3], items_ND[:, 2 * k : -3])
        sums_N3 = items_ND[:, -3:] + user_D[-3:]
        outputs_N4 = torch.stack(
            [wide_N + sums_N3[:, 0] + wide_deep_N, neural_cf_N, cross_NK.sum(1) + sums_N3[:, 1] + deepfm_N, nfm_N], 1
        )
        return sums_N3[:, 2] + torch.mv(outputs_N4, self.joint_4)
