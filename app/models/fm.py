"""Factorisation machine (Rendle 2010): every pair of fields has a weight, the product of two embeddings.

    logit = w0 + sum_s w_s x_s + sum over pairs f < g of e_f . e_g                                    (eq. 1)
          = w0 + sum_s w_s x_s + 1/2 sum_k (S*S - Q)_k,   S = sum_f e_f,  Q = sum_f e_f*e_f     (lemma 3.1)

with e_f = sum of x_s v_s over a field's slots: the weight of x_s x_t is v_s . v_t, and x multiplies it, so numbers take
part. S*S - Q counts every pair twice, hence the half. With `crosses` only chosen pairs of fields are summed; with
`dims` embeddings have sizes of their own, and e_f here is P_f e_f (`app.models.mixed_dims`).

Split, exactly: FM(u, i) = FM_u + FM_i + S_u . S_i.
    user state  [ S_u (K) | w0 + FM_u ]        item state  [ S_i (K) | FM_i ]
"""

import torch
from torch import Tensor

from app.models.base import CtrModel
from app.models.mixed_dims import FieldDims, crosses_of
from app.models.native_weights import TopMlpWeights
from app.models.pairwise import FieldPairs
from app.models.preprocessing import Preprocessing


class FM(CtrModel):
    """The factorisation machine; see the module for its formula and split."""

    name = "fm"
    has_first_order = True

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 8,
        crosses: FieldPairs | None = None,
        dims: FieldDims | None = None,
    ) -> None:
        """Raise ConfigError if `crosses` or `dims` do not fit the schema."""
        super().__init__(preprocessing, dim)
        self.crosses = crosses_of(preprocessing, dim, crosses, dims)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        crosses_BK: Tensor = self.crosses(fields_BFE[:, :, 1:])
        return self.bias + fields_BFE[:, :, 0].sum(1) + crosses_BK.sum(1)

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, _ = self.user_fields(keys_BS, values_BS)
        cross_BC, within_BK = self.crosses.user_half(fields_BFE[:, :, 1:])
        bias_B = self.bias + fields_BFE[:, :, 0].sum(1) + within_BK.sum(1)
        return torch.cat([cross_BC, bias_B.unsqueeze(1)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, _ = self.item_fields(keys_NS, values_NS)
        cross_NC, within_NK = self.crosses.item_half(fields_NFE[:, :, 1:])
        bias_N = fields_NFE[:, :, 0].sum(1) + within_NK.sum(1)
        return torch.cat([cross_NC, bias_N.unsqueeze(1)], 1)

    def top_mlp(self) -> TopMlpWeights | None:
        return TopMlpWeights(0, self.crosses.cross_width, 1, 1, [], None)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        return torch.mv(items_ND[:, :-1], user_D[:-1]) + items_ND[:, -1] + user_D[-1]
