"""Deep & Cross Network v2 (Wang et al. 2021): explicit crosses of any order, one more with each layer.

    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l,   x_0 = [e_1 .. e_F, numerics]                          (eq. 1)
    parallel, the default: logit = w0 + c . x_L + D(x_0)      stacked: logit = w0 + D(x_L)          (their figure 1)

Split as far as it goes: W_0 x_0 and the first layer of a parallel D are linear in x_0 = [u, i], so the item's part is
precomputed; the cross layers after the first and a stacked D multiply the halves and run for every pair.
    user state  [ u | W_0u u + b_0 (D) | W_u u + b (H, parallel) ]
    item state  [ i | W_0i i (D)       | W_i i (H, parallel) ]
"""

import torch
from torch import Tensor, nn

from app.errors import ConfigError
from app.models.base import CtrModel
from app.models.layers import SplitMlp
from app.models.preprocessing import Preprocessing


class DCN(CtrModel):
    """The stacked or parallel form of DCN v2; see the module for its formula and split."""

    name = "dcn"
    reads_across = True

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 8,
        hidden: tuple[int, ...] = (128, 64),
        dropout: float = 0.2,
        batch_norm: bool = True,
        cross_layers: int = 2,
        stacked: bool = False,
    ) -> None:
        """Raise ConfigError if there is no cross layer."""
        if cross_layers < 1:
            raise ConfigError(f"cross_layers {cross_layers}: a cross network has at least one")
        super().__init__(preprocessing, dim)
        self.user_width, self.item_width = self.deep_widths()
        width = self.user_width + self.item_width
        self.stacked = stacked
        self.first = nn.Linear(width, width)
        self.later = nn.ModuleList(nn.Linear(width, width) for _ in range(cross_layers - 1))
        self.output = nn.Linear(width, 1)
        self.deep = SplitMlp(self.user_width, self.item_width, hidden, dropout, batch_norm, self.across_width)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        x0_BD = self.deep_inputs(fields_BFE[:, :, 1:], x_BT)
        crossed_BD = self._cross_layers(x0_BD, self.first(x0_BD))
        if self.stacked:
            stacked_B: Tensor = self.deep(self.with_across(crossed_BD, x_BT))
            return self.bias + stacked_B
        parallel_B: Tensor = self.deep(self.with_across(x0_BD, x_BT)) + self.output(crossed_BD).squeeze(-1)
        return self.bias + parallel_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        rows_BT, x_BT = self.user.expand(self.vocabulary_V, keys_BS, values_BS)
        fields_BFE, numerics_BM = self.user.pool(self.slot_vectors(rows_BT, x_BT)), self.user.numerics(x_BT)
        user_BD = self.side_deep_inputs(fields_BFE[:, :, 1:], numerics_BM)
        parts = [user_BD, nn.functional.linear(user_BD, self.first.weight[:, : self.user_width], self.first.bias)]
        if not self.stacked:
            parts.append(self.deep.user_half(user_BD))
        return self.with_user_rows(torch.cat(parts, 1), rows_BT)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        rows_NT, x_NT = self.item.expand(self.vocabulary_V, keys_NS, values_NS)
        fields_NFE, numerics_NM = self.item.pool(self.slot_vectors(rows_NT, x_NT)), self.item.numerics(x_NT)
        item_ND = self.side_deep_inputs(fields_NFE[:, :, 1:], numerics_NM)
        parts = [item_ND, nn.functional.linear(item_ND, self.first.weight[:, self.user_width :])]
        if not self.stacked:
            parts.append(self.deep.item_half(item_ND))
        return self.with_item_rows(torch.cat(parts, 1), rows_NT)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        user_D, items_ND, pair_NC = self.split_states(user_D, items_ND)
        u, i = self.user_width, self.item_width
        x0_ND = torch.cat([user_D[:u].expand(items_ND.shape[0], u), items_ND[:, :i]], 1)
        linear_ND = user_D[u : u + u + i] + items_ND[:, i : i + u + i]
        crossed_ND = self._cross_layers(x0_ND, linear_ND)
        if self.stacked:
            stacked_N: Tensor = self.deep(torch.cat([crossed_ND, pair_NC], 1))
            return self.bias + stacked_N
        items_NH = self.deep.with_pairs(items_ND[:, i + u + i :], pair_NC)
        deep_N = self.deep.output_of_halves(user_D[u + u + i :], items_NH)
        parallel_N: Tensor = deep_N + self.output(crossed_ND).squeeze(-1)
        return self.bias + parallel_N

    def _cross_layers(self, x0_BD: Tensor, linear_BD: Tensor) -> Tensor:
        """Compute x_L of x_0 and W_0 x_0 + b_0."""
        x_BD = x0_BD * linear_BD + x0_BD
        for layer in self.later:
            x_BD = x0_BD * layer(x_BD) + x_BD
        return x_BD
