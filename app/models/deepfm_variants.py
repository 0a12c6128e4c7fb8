"""DeepFM with options that go beyond the paper.

`crosses` sums chosen pairs of fields and not all of them. `dims` gives fields embeddings of sizes of their own; the
crosses are then of P_f e_f (`app.models.mixed_dims`), and D reads e_f. `element_wise` also feeds the crosses, unsummed,
to D: inner and element-wise products together (as Qu et al. 2016 do).

The split is that of `app.models.deepfm`. Chosen pairs put K columns for each crossed item field in the place of S. From
element-wise products the first layer takes W_p (f_u + f_i + S_u * S_i): the first two terms are in the halves, the last
is S_i times the matrix W_p diag(S_u).
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from app.models.base import CtrModel
from app.models.deepfm import DeepFM
from app.models.layers import SplitMlp
from app.models.mixed_dims import FieldDims, crosses_of, dims_mask
from app.models.native_weights import TopMlpWeights
from app.models.pairwise import FieldPairs
from app.models.preprocessing import Preprocessing


class DeepFMVariant(DeepFM):
    """DeepFM with chosen crosses, element-wise products or embedding sizes of their own; see the module."""

    __constants__ = ("element_wise", "has_dims", "has_across")
    """Constants, so that a program holds only the branches it takes: the others would be a third of its load."""

    reads_across = False
    dims_mask_FE: Tensor

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 8,
        hidden: tuple[int, ...] = (128, 64),
        dropout: float = 0.2,
        batch_norm: bool = True,
        crosses: FieldPairs | None = None,
        element_wise: bool = False,
        dims: FieldDims | None = None,
    ) -> None:
        """Raise ConfigError if `crosses` or `dims` do not fit the schema."""
        CtrModel.__init__(self, preprocessing, dim)  # without the paper's parts, whose random weights would be drawn
        self.crosses = crosses_of(preprocessing, dim, crosses, dims)
        self.element_wise, self.has_dims = element_wise, bool(dims)
        mask_FE = pad(dims_mask(preprocessing, dim, dims), (1, 0), value=1.0) if dims else torch.zeros(0)
        self.register_buffer("dims_mask_FE", mask_FE)
        user_width, item_width = self.deep_widths()
        self.deep = SplitMlp(user_width, item_width + dim * element_wise, hidden, dropout, batch_norm)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        if self.has_dims:
            fields_BFE = fields_BFE * self.dims_mask_FE
        w_BF1, e_BFK = torch.split(fields_BFE, [1, self.dim], 2)
        crosses_BK: Tensor = self.crosses(e_BFK)
        inputs_BD = self.deep_inputs(e_BFK, x_BT)
        if self.element_wise:
            inputs_BD = torch.cat([inputs_BD, crosses_BK], 1)
        deep_B: Tensor = self.deep(inputs_BD)
        return self.bias + w_BF1.sum([1, 2]) + crosses_BK.sum(1) + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, numerics_BM = self.user_fields(keys_BS, values_BS)
        if self.has_dims:
            fields_BFE = fields_BFE * self.dims_mask_FE[: self.user.fields]
        e_BFK = fields_BFE[:, :, 1:]
        cross_BC, within_BK = self.crosses.user_half(e_BFK)
        hidden_BH = self.deep.user_half(self.side_deep_inputs(e_BFK, numerics_BM))
        if self.element_wise:
            hidden_BH = hidden_BH + torch.matmul(within_BK, self._product_weight_HK().t())
        bias_B = self.bias + fields_BFE[:, :, 0].sum(1) + within_BK.sum(1)
        return torch.cat([hidden_BH, cross_BC, bias_B.unsqueeze(1)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, numerics_NM = self.item_fields(keys_NS, values_NS)
        if self.has_dims:
            fields_NFE = fields_NFE * self.dims_mask_FE[self.user.fields :]
        e_NFK = fields_NFE[:, :, 1:]
        cross_NC, within_NK = self.crosses.item_half(e_NFK)
        inputs_ND = self.side_deep_inputs(e_NFK, numerics_NM)
        if self.element_wise:
            inputs_ND = torch.cat([inputs_ND, within_NK], 1)
        bias_N = fields_NFE[:, :, 0].sum(1) + within_NK.sum(1)
        return torch.cat([self.deep.item_half(inputs_ND), cross_NC, bias_N.unsqueeze(1)], 1)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        h = self.deep.hidden
        cross_NC, user_C, hidden_NH = items_ND[:, h:-1], user_D[h:-1], items_ND[:, :h]
        if self.element_wise:
            weight_HC = self._product_weight_HK().repeat(1, self.crosses.cross_width // self.dim) * user_C
            hidden_NH = hidden_NH + torch.matmul(cross_NC, weight_HC.t())
        deep_N = self.deep.output_of_halves(user_D[:h], hidden_NH)
        return deep_N + torch.mv(cross_NC, user_C) + items_ND[:, -1] + user_D[-1]

    def top_mlp(self) -> TopMlpWeights | None:
        if self.element_wise:
            return None
        layers, output = self.deep.top_weights()
        return TopMlpWeights(self.deep.hidden, self.crosses.cross_width, 1, 1, layers, output)

    def _product_weight_HK(self) -> Tensor:
        """Return the first layer's columns of the element-wise products, which come last."""
        return self.deep.first.linear.weight[:, -self.dim :]
