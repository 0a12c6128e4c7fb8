"""Logistic regression over slots: the first-order model that every cross has to beat.

    logit = w0 + sum_s w_s x_s

Split, exactly: a sum of two halves. user state [ w0 + sum over user slots ]        item state [ sum over item slots ]
"""

from torch import Tensor

from app.models.base import CtrModel
from app.models.native_weights import TopMlpWeights
from app.models.preprocessing import Preprocessing


class LogisticRegression(CtrModel):
    """The bias plus one weight per slot; see the module for its formula and split."""

    name = "lr"
    has_first_order = True

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing, dim=0)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        return self.bias + fields_BFE[:, :, 0].sum(1)

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, _ = self.user_fields(keys_BS, values_BS)
        return self.bias + fields_BFE[:, :, 0].sum(1, keepdim=True)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, _ = self.item_fields(keys_NS, values_NS)
        return fields_NFE[:, :, 0].sum(1, keepdim=True)

    def top_mlp(self) -> TopMlpWeights | None:
        return TopMlpWeights(0, 0, 1, 1, [], None)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        return items_ND[:, 0] + user_D[0]
