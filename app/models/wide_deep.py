"""Wide & Deep (Cheng et al. 2016): a linear model with hashed cross features remembers, a deep network generalises.

    logit = w0 + sum_s w_s x_s + wide + D([e_1 .. e_F, numerics])                                  (eq. 3)

with wide the crosses of `app.models.hashed_crosses`: those the schema declares, else of fields that share a space.

Split, exactly: the first deep layer is W_u u + b + W_i i; crosses of a user and an item field are looked up per pair.
    user state  [ W_u u + b (H) | crossed slots (5 each) | w0 + first order + user crosses ]
    item state  [ W_i i (H)     | crossed slots (5 each) | first order + item crosses ]
"""

import torch
from torch import Tensor, nn

from app.models.base import CtrModel
from app.models.hashed_crosses import HashedCrosses
from app.models.layers import SplitMlp
from app.models.preprocessing import Preprocessing


class WideDeep(CtrModel):
    """Wide & Deep; see the module for its formula and split."""

    name = "wide_deep"
    has_first_order = True
    tables = (*CtrModel.tables, "cross_table_C1")
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
        self.wide = HashedCrosses(preprocessing)
        self.cross_table_C1 = nn.Parameter(torch.zeros(self.wide.rows, 1))
        self.deep = SplitMlp(*self.deep_widths(), hidden, dropout, batch_norm, self.across_width)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        wide_B: Tensor = self.wide(self.cross_table_C1, self.vocabulary_V, rows_BT, x_BT)
        deep_B: Tensor = self.deep(self.with_across(self.deep_inputs(fields_BFE[:, :, 1:], x_BT), x_BT))
        return self.bias + fields_BFE[:, :, 0].sum(1) + wide_B + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        rows_BT, x_BT = self.user.expand(self.vocabulary_V, keys_BS, values_BS)
        fields_BFE, numerics_BM = self.user.pool(self.slot_vectors(rows_BT, x_BT)), self.user.numerics(x_BT)
        within_B, slots_BD = self.wide.user_half(self.cross_table_C1, self.vocabulary_V, rows_BT, x_BT)
        bias_B = self.bias + fields_BFE[:, :, 0].sum(1) + within_B
        hidden_BH = self.deep.user_half(self.side_deep_inputs(fields_BFE[:, :, 1:], numerics_BM))
        return self.with_user_rows(torch.cat([hidden_BH, slots_BD, bias_B.unsqueeze(1)], 1), rows_BT)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        rows_NT, x_NT = self.item.expand(self.vocabulary_V, keys_NS, values_NS)
        fields_NFE, numerics_NM = self.item.pool(self.slot_vectors(rows_NT, x_NT)), self.item.numerics(x_NT)
        within_N, slots_ND = self.wide.item_half(self.cross_table_C1, self.vocabulary_V, rows_NT, x_NT)
        bias_N = fields_NFE[:, :, 0].sum(1) + within_N
        hidden_NH = self.deep.item_half(self.side_deep_inputs(fields_NFE[:, :, 1:], numerics_NM))
        return self.with_item_rows(torch.cat([hidden_NH, slots_ND, bias_N.unsqueeze(1)], 1), rows_NT)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        user_D, items_ND, pair_NC = self.split_states(user_D, items_ND)
        h = self.deep.hidden
        wide_N = self.wide.score_across(self.cross_table_C1, user_D[h:-1], items_ND[:, h:-1])
        deep_N = self.deep.output_of_halves(user_D[:h], self.deep.with_pairs(items_ND[:, :h], pair_NC))
        return deep_N + wide_N + items_ND[:, -1] + user_D[-1]
