"""Wide & Deep (Cheng et al. 2016): a linear model with hashed cross features remembers, a deep network generalises.

    logit = w0 + sum_s w_s x_s + wide + D([e_1 .. e_F, numerics, z])                               (eq. 3)

with wide the crosses of `app.models.hashed_crosses`: those the schema declares, else of fields that share a space; and
z the target statistics of pairs across sides, where there are some (`app.models.target_statistics`).

Split, exactly: the first deep layer is W_u u + b + W_i i + W_z z; crosses and statistics of a user and an item field
are looked up per pair, the latter by table rows r.
    user state  [ W_u u + b (H) | crossed slots (5 each) | r (4 each) | w0 + first order + user crosses ]
    item state  [ W_i i (H)     | crossed slots (5 each) | r (4 each) | first order + item crosses ]
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
        self.deep = SplitMlp(*self.deep_widths(), hidden, dropout, batch_norm, self.across.width)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        wide_B: Tensor = self.wide(self.cross_table_C1, self.vocabulary_V, rows_BT, x_BT)
        inputs_BD = self.deep_inputs(fields_BFE[:, :, 1:], x_BT)
        if self.across.width > 0:
            inputs_BD = torch.cat([inputs_BD, x_BT[:, -self.across.width :]], 1)
        deep_B: Tensor = self.deep(inputs_BD)
        return self.bias + fields_BFE[:, :, 0].sum(1) + wide_B + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        rows_BT, x_BT = self.user.expand(self.vocabulary_V, keys_BS, values_BS)
        fields_BFE, numerics_BM = self.user.pool(self.slot_vectors(rows_BT, x_BT)), self.user.numerics(x_BT)
        within_B, slots_BD = self.wide.user_half(self.cross_table_C1, self.vocabulary_V, rows_BT, x_BT)
        bias_B = self.bias + fields_BFE[:, :, 0].sum(1) + within_B
        hidden_BH = self.deep.user_half(self.side_deep_inputs(fields_BFE[:, :, 1:], numerics_BM))
        return torch.cat([hidden_BH, slots_BD, self.across.pack_user(rows_BT, slots_BD), bias_B.unsqueeze(1)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        rows_NT, x_NT = self.item.expand(self.vocabulary_V, keys_NS, values_NS)
        fields_NFE, numerics_NM = self.item.pool(self.slot_vectors(rows_NT, x_NT)), self.item.numerics(x_NT)
        within_N, slots_ND = self.wide.item_half(self.cross_table_C1, self.vocabulary_V, rows_NT, x_NT)
        bias_N = fields_NFE[:, :, 0].sum(1) + within_N
        hidden_NH = self.deep.item_half(self.side_deep_inputs(fields_NFE[:, :, 1:], numerics_NM))
        return torch.cat([hidden_NH, slots_ND, self.across.pack_items(rows_NT, slots_ND), bias_N.unsqueeze(1)], 1)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        h, items_NH = self.deep.hidden, items_ND[:, : self.deep.hidden]
        user_end, items_end = user_D.size(0) - 1, items_ND.size(1) - 1
        if self.across.width > 0:
            user_end, items_end = user_end - self.across.user_packed, items_end - self.across.item_packed
            pair_NC = self.across.of_states(user_D[user_end:-1], items_ND[:, items_end:-1])
            items_NH = items_NH + self.deep.pair_part(pair_NC)
        wide_N = self.wide.score_across(self.cross_table_C1, user_D[h:user_end], items_ND[:, h:items_end])
        return self.deep.output_of_halves(user_D[:h], items_NH) + wide_N + items_ND[:, -1] + user_D[-1]
