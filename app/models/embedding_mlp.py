"""Embedding & MLP: a deep network over the concatenated embeddings, the plainest neural model there is.

    logit = w0 + D([e_1 .. e_F, numerics])

This is the deep part of Wide & Deep (Cheng et al. 2016, eq. 2) and of DeepFM (Guo et al. 2017, eq. 3 and 4) by itself:
Deep Crossing (Shan et al. 2016) without residuals.

Split, exactly: the first layer is W_u u + b + W_i i.    user state  [ W_u u + b (H) ]        item state  [ W_i i (H) ]
"""

from torch import Tensor

from app.models.base import CtrModel
from app.models.layers import SplitMlp
from app.models.native_weights import AffineWeights, TopMlpWeights
from app.models.preprocessing import Preprocessing


class EmbeddingMlp(CtrModel):
    """D(concat of all embeddings); see the module for its formula and split."""

    name = "embedding_mlp"
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
        self.deep = SplitMlp(*self.deep_widths(), hidden, dropout, batch_norm, self.across_width)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        deep_B: Tensor = self.deep(self.with_across(self.deep_inputs(fields_BFE[:, :, 1:], x_BT), x_BT))
        return self.bias + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        rows_BT, x_BT = self.user.expand(self.vocabulary_V, keys_BS, values_BS)
        fields_BFE, numerics_BM = self.user.pool(self.slot_vectors(rows_BT, x_BT)), self.user.numerics(x_BT)
        hidden_BH = self.deep.user_half(self.side_deep_inputs(fields_BFE[:, :, 1:], numerics_BM))
        return self.with_user_rows(hidden_BH, rows_BT)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        rows_NT, x_NT = self.item.expand(self.vocabulary_V, keys_NS, values_NS)
        fields_NFE, numerics_NM = self.item.pool(self.slot_vectors(rows_NT, x_NT)), self.item.numerics(x_NT)
        hidden_NH = self.deep.item_half(self.side_deep_inputs(fields_NFE[:, :, 1:], numerics_NM))
        return self.with_item_rows(hidden_NH, rows_NT)

    def top_mlp(self) -> TopMlpWeights | None:
        if self.has_across:
            return None  # the compiled scorer looks nothing up
        layers, output = self.deep.top_weights()
        return TopMlpWeights(self.deep.hidden, 0, 0, 0, layers, AffineWeights(output.weight, output.bias + self.bias))

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        user_D, items_ND, pair_NC = self.split_states(user_D, items_ND)
        return self.bias + self.deep.output_of_halves(user_D, self.deep.with_pairs(items_ND, pair_NC))
