"""Neural factorisation machine (He & Chua 2017): a deep network over the crosses themselves.

    logit = w0 + sum_s w_s x_s + D(f),   f = sum over pairs e_f * e_g = 1/2 (S*S - Q)             (eq. 2, 3 and 4)

Batch norm and dropout on the pooled vector f, as on the hidden layers (their section 3.2).

Split, exactly, but for D: f(u, i) = f_u + f_i + S_u * S_i, which is cheap; D then runs for every pair.
    user state  [ S_u (K) | f_u (K) | w0 + first order ]        item state  [ S_i (K) | f_i (K) | first order ]
With `crosses` only chosen pairs are pooled; then each crossed item field has its own K columns in the place of S_i.
With `dims` embeddings have sizes of their own, and e_f here is P_f e_f (`app.models.mixed_dims`).
"""

import torch
from torch import Tensor, nn

from app.models.base import CtrModel
from app.models.layers import Dropout, SplitMlp
from app.models.mixed_dims import FieldDims, crosses_of
from app.models.pairwise import FieldPairs
from app.models.preprocessing import Preprocessing


class NFM(CtrModel):
    """The neural factorisation machine; see the module for its formula and split."""

    name = "nfm"
    has_first_order = True

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 8,
        hidden: tuple[int, ...] = (128, 64),
        dropout: float = 0.2,
        batch_norm: bool = True,
        crosses: FieldPairs | None = None,
        dims: FieldDims | None = None,
    ) -> None:
        """Raise ConfigError if `crosses` or `dims` do not fit the schema."""
        super().__init__(preprocessing, dim)
        self.crosses = crosses_of(preprocessing, dim, crosses, dims)
        self.pooled = PooledMlp(dim, hidden, dropout, batch_norm)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        deep_B: Tensor = self.pooled(self.crosses(fields_BFE[:, :, 1:]))
        return self.bias + fields_BFE[:, :, 0].sum(1) + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, _ = self.user_fields(keys_BS, values_BS)
        cross_BC, within_BK = self.crosses.user_half(fields_BFE[:, :, 1:])
        return torch.cat([cross_BC, within_BK, self.bias + fields_BFE[:, :, 0].sum(1, keepdim=True)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, _ = self.item_fields(keys_NS, values_NS)
        cross_NC, within_NK = self.crosses.item_half(fields_NFE[:, :, 1:])
        return torch.cat([cross_NC, within_NK, fields_NFE[:, :, 0].sum(1, keepdim=True)], 1)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        c = self.crosses.cross_width
        cross_NJK = (items_ND[:, :c] * user_D[:c]).view(items_ND.shape[0], c // self.dim, self.dim)
        f_NK = cross_NJK.sum(1) + items_ND[:, c : c + self.dim] + user_D[c : c + self.dim]
        deep_N: Tensor = self.pooled(f_NK)
        return deep_N + items_ND[:, -1] + user_D[-1]


class PooledMlp(nn.Module):
    """Batch norm and dropout, then D(), on pooled crosses."""

    def __init__(self, dim: int, hidden: tuple[int, ...], dropout: float, batch_norm: bool) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm1d(dim) if batch_norm else nn.Identity()
        self.dropout = Dropout(float(dropout))
        self.deep = SplitMlp(0, dim, hidden, dropout, batch_norm)

    def forward(self, f_BK: Tensor) -> Tensor:
        """Compute outputs [B] of pooled crosses [B, K]."""
        output_B: Tensor = self.deep(self.dropout(self.norm(f_BK)))
        return output_B
