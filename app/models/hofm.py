"""Higher-order factorisation machine (Blondel et al. 2016): crosses of 2, 3 .. d fields.

    logit = w0 + sum_s w_s x_s + sum_{l=2..d} sum_k (a_l)_k,   a_l = sum over f1 < .. < fl of e_f1 * .. * e_fl

a_l is the ANOVA kernel of order l; their dynamic programme a_{l,f} = a_{l,f-1} + e_f a_{l-1,f-1} gives it in O(F k d).
The orders share one set of embeddings (their section on shared parameters); d = 2 is the factorisation machine.

Split, exactly: the sums of a union are a_l(u+i) = sum_j a_j(u) a_{l-j}(i), so the logit is linear in the item's sums:
    sum_{l=2..d} a_l(u+i) = c_0 + sum_{j=1..d} c_j a_j(i),   c_j = sum_{l=max(2,j)..d} a_{l-j}(u)
    user state  [ c_1 .. c_d (d K) | w0 + first order + c_0 ]        item state  [ a_1 .. a_d (d K) | first order ]
"""

import torch
from torch import Tensor

from app.errors import ConfigError
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing


class HOFM(CtrModel):
    """The factorisation machine of a higher order; see the module for its formula and split."""

    name = "hofm"
    has_first_order = True

    def __init__(self, preprocessing: Preprocessing, dim: int = 8, order: int = 3) -> None:
        """Raise ConfigError if the order is below 2."""
        if order < 2:
            raise ConfigError(f"order {order}: crosses begin at order 2")
        super().__init__(preprocessing, dim)
        self.order = order

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        sums_BLK = self.anova(fields_BFE[:, :, 1:])
        return self.bias + fields_BFE[:, :, 0].sum(1) + sums_BLK[:, 1:].sum((1, 2))

    def anova(self, e_BFK: Tensor) -> Tensor:
        """Compute a_1 .. a_d, [B, d, K], by the dynamic programme, filled for all fields an order at a time."""
        sums: list[Tensor] = []
        below_BFK = torch.ones_like(e_BFK)  # a_{l-1} of the fields before each
        for order in range(self.order):
            terms_BFK = e_BFK * below_BFK
            sums.append(terms_BFK.sum(1))
            if order + 1 < self.order:
                below_BFK = terms_BFK.cumsum(1) - terms_BFK
        return torch.stack(sums, 1)

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, _ = self.user_fields(keys_BS, values_BS)
        sums_BLK = self.anova(fields_BFE[:, :, 1:])
        totals_BLK = sums_BLK.cumsum(1)  # a_1 + .. + a_m
        beyond_BLK = torch.cat([totals_BLK[:, :-1].flip(1), torch.zeros_like(totals_BLK[:, :1])], 1)
        a0_L1 = torch.ones(self.order, 1, dtype=sums_BLK.dtype, device=sums_BLK.device)
        a0_L1[0] = 0.0  # an item field alone is no cross
        bias_B = self.bias + fields_BFE[:, :, 0].sum(1) + (totals_BLK[:, -1] - sums_BLK[:, 0]).sum(1)
        return torch.cat([(beyond_BLK + a0_L1).flatten(1), bias_B.unsqueeze(1)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, _ = self.item_fields(keys_NS, values_NS)
        return torch.cat([self.anova(fields_NFE[:, :, 1:]).flatten(1), fields_NFE[:, :, 0].sum(1, keepdim=True)], 1)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        return torch.mv(items_ND[:, :-1], user_D[:-1]) + items_ND[:, -1] + user_D[-1]
