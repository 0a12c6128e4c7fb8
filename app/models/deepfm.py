"""DeepFM (Guo et al. 2017): a factorisation machine and a deep network over the same embeddings.

    logit = w0 + sum_s w_s x_s + 1/2 sum_k (S*S - Q)_k + D([e_1 .. e_F, numerics])          (eq. 1, 2 and 4)

with e_f = sum of x_s v_s over a field's slots, S = sum_f e_f and Q = sum_f e_f*e_f. Numeric fields are slots whose x is
the number, so they take part in the crosses. Three options: `crosses` sums chosen pairs of fields and not all of them;
`element_wise` also feeds the crosses, unsummed, to D, inner and element-wise products together (as Qu et al. 2016 do);
with `dims` embeddings have sizes of their own, and the crosses are of P_f e_f (`app.models.mixed_dims`); D reads e_f.

Split, exactly: FM(u, i) = FM_u + FM_i + S_u . S_i, and the first deep layer is W_u u + b + W_i i.
    user state  [ W_u u + b (H) | S_u (K) | w0 + FM_u ]        item state  [ W_i i (H) | S_i (K) | FM_i ]
Chosen pairs put K columns for each crossed item field in the place of S. Of element-wise products the first layer takes
W_p (f_u + f_i + S_u * S_i): the first two are in the halves, the last is S_i times the matrix W_p diag(S_u).
"""

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from app.models.base import CtrModel
from app.models.fm_autograd import Head
from app.models.layers import SplitMlp
from app.models.mixed_dims import Sizes, sized_crosses, within_sizes
from app.models.pairwise import AllPairs, Crosses
from app.models.side_input import Preprocessing


class DeepFM(CtrModel):
    name = "deepfm"
    __constants__ = ("element_wise", "fused", "sized")
    """So that a program holds only the branches it takes: compiling the others is a third of its load."""

    within_FE: Tensor
    user_map_DI: Tensor
    user_offset_D: Tensor

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 8,
        hidden: tuple[int, ...] = (128, 64),
        dropout: float = 0.2,
        batch_norm: bool = True,
        crosses: Crosses | None = None,
        element_wise: bool = False,
        dims: Sizes | None = None,
    ) -> None:
        super().__init__(preprocessing, dim)
        self.crosses = sized_crosses(preprocessing.schema, dim, crosses, dims)
        self.element_wise, self.sized = element_wise, bool(dims)
        within_FE = pad(within_sizes(preprocessing.schema, dim, dims), (1, 0), value=1.0) if dims else torch.zeros(0)
        self.register_buffer("within_FE", within_FE)
        self.all_pairs = isinstance(self.crosses, AllPairs) and not element_wise
        user_width, item_width = self.deep_widths()
        self.deep = SplitMlp(user_width, item_width + dim * element_wise, hidden, dropout, batch_norm)
        self.fused = False
        self.register_buffer("user_map_DI", torch.zeros(0, 0))
        self.register_buffer("user_offset_D", torch.zeros(0))

    @torch.no_grad()
    def fuse(self) -> None:
        """Also makes one linear map of all that is linear in the user state: [W_u u + b | S_u | w0 + first order].

        It takes the user's field vectors and numerics as they come. One request spends more on starting operators than
        on what they compute, and this leaves out half of them.
        """
        super().fuse()
        if self.element_wise or not isinstance(self.crosses, AllPairs):
            return
        fields, k, h, first = self.user.fields, self.dim, self.deep.hidden, self.deep.first.linear
        embedded = fields * (1 + k)
        map_DI = torch.zeros(h + k + 1, embedded + self.user.numeric_fields, dtype=first.weight.dtype)
        map_DFE = map_DI[:, :embedded].view(-1, fields, 1 + k)
        map_DFE[:h, :, 1:] = first.weight[:, : fields * k].reshape(h, fields, k)
        map_DFE[h : h + k, :, 1:] = torch.eye(k).unsqueeze(1)
        map_DFE[h + k, :, 0] = 1.0
        map_DI[:h, embedded:] = first.weight[:, fields * k : self.deep.user_width]
        self.user_map_DI = map_DI
        self.user_offset_D = torch.cat([first.bias, torch.zeros(k, dtype=map_DI.dtype), self.bias])
        self.fused = True

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        if not torch.jit.is_scripting() and self.training and self.all_pairs:  # type: ignore[attr-defined]
            return self._trained(x_BT, fields_BFE)
        if self.sized:
            fields_BFE = fields_BFE * self.within_FE
        first_BF1, e_BFK = torch.split(fields_BFE, [1, self.dim], 2)
        crosses_BK: Tensor = self.crosses(e_BFK)
        inputs_BD = self.deep_parts(e_BFK, x_BT)
        if self.element_wise:
            inputs_BD = torch.cat([inputs_BD, crosses_BK], 1)
        deep_B: Tensor = self.deep(inputs_BD)
        first_B: Tensor = first_BF1.sum([1, 2])
        return self.bias + first_B + crosses_BK.sum(1) + deep_B

    @torch.jit.unused
    def _trained(self, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        """The same, with a gradient that costs less."""
        split = self.user.width
        user_BM, item_BM = self.user.numerics(x_BT[:, :split]), self.item.numerics(x_BT[:, split:])
        inputs_BD, crossed_B = Head.apply(fields_BFE, user_BM, item_BM, self.user.fields)  # type: ignore[no-untyped-call]
        logits_B: Tensor = self.bias + crossed_B + self.deep(inputs_BD)
        return logits_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, numerics_BM = self.user_fields(keys_BS, values_BS)
        if self.fused:
            h, k = self.deep.hidden, self.dim
            inputs_BI = fields_BFE.flatten(1)
            if self.user.numeric_fields > 0:
                inputs_BI = torch.cat([inputs_BI, numerics_BM], 1)
            state_BD = linear(inputs_BI, self.user_map_DI, self.user_offset_D)
            e_BFK, sum_BK = fields_BFE.narrow(2, 1, k), state_BD.narrow(1, h, k)
            state_BD.select(1, h + k).add_((sum_BK * sum_BK).sum(1) - (e_BFK * e_BFK).sum([1, 2]), alpha=0.5)
            return state_BD
        if self.sized:
            fields_BFE = fields_BFE * self.within_FE[: self.user.fields]
        across_BC, within_BK = self.crosses.user_half(fields_BFE[:, :, 1:])
        hidden_BH = self.deep.user_half(self.deep_half(fields_BFE, numerics_BM))
        if self.element_wise:
            hidden_BH = hidden_BH + torch.matmul(within_BK, self._cross_weight_HK().t())
        own_B = self.bias + fields_BFE[:, :, 0].sum(1) + within_BK.sum(1)
        return torch.cat([hidden_BH, across_BC, own_B.unsqueeze(1)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, numerics_NM = self.item_fields(keys_NS, values_NS)
        if self.sized:
            fields_NFE = fields_NFE * self.within_FE[self.user.fields :]
        across_NC, within_NK = self.crosses.item_half(fields_NFE[:, :, 1:])
        inputs_ND = self.deep_half(fields_NFE, numerics_NM)
        if self.element_wise:
            inputs_ND = torch.cat([inputs_ND, within_NK], 1)
        own_N = fields_NFE[:, :, 0].sum(1) + within_NK.sum(1)
        return torch.cat([self.deep.item_half(inputs_ND), across_NC, own_N.unsqueeze(1)], 1)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        h, c = self.deep.hidden, self.crosses.width
        across_NC, user_C, hidden_NH = items_ND.narrow(1, h, c), user_D[h : h + c], items_ND.narrow(1, 0, h)
        if self.element_wise:
            weight_HC = self._cross_weight_HK().repeat(1, c // self.dim) * user_C
            hidden_NH = hidden_NH + torch.matmul(across_NC, weight_HC.t())
        deep_N = self.deep.joined(user_D[:h], hidden_NH)
        return torch.addmv(deep_N, across_NC, user_C) + items_ND.select(1, h + c) + user_D[h + c]

    def user_map(self) -> list[Tensor]:
        if not self.fused:
            return []
        return [self.user_map_DI, self.user_offset_D, torch.tensor([self.deep.hidden, self.dim])]

    def tail(self) -> list[Tensor]:
        if self.element_wise:
            return []
        return self.deep.tail(self.crosses.width, 1)

    def score_rows(self, user_D: Tensor, states_CD: Tensor, rows_N: Tensor) -> Tensor:
        items_ND = states_CD.index_select(0, rows_N)
        if self.element_wise:
            return self.score(user_D, items_ND.to(user_D.dtype))
        return self._served(user_D, items_ND)

    def score_users(self, users_UD: Tensor, items_PD: Tensor, counts: list[int]) -> Tensor:
        if self.element_wise:
            return self._one_by_one(users_UD, items_PD, counts)
        owner_P = torch.repeat_interleave(torch.tensor(counts, device=users_UD.device))
        return self._served(users_UD.index_select(0, owner_P), items_PD)

    def _served(self, user: Tensor, items_ND: Tensor) -> Tensor:
        """Logits [N] of one user [D], or of one for each item [N, D], in the memory and the precision of `items_ND`."""
        h, c = self.deep.hidden, self.crosses.width
        hidden_NH: Tensor = self.deep.halves_(user.narrow(-1, 0, h), items_ND.narrow(1, 0, h))
        crossed_NC = items_ND.narrow(1, h, c + 1)
        if items_ND.dtype != user.dtype:
            # What is left is cheap, and summed in full precision: scores rounded to bfloat16 would tie.
            hidden_NH, crossed_NC = hidden_NH.to(user.dtype), crossed_NC.to(user.dtype)
        own_N = crossed_NC.select(1, c) + user.select(-1, h + c)
        deep_N = torch.addmv(own_N, hidden_NH, self.deep.output.weight.select(0, 0)) + self.deep.output.bias
        across_NC, user_C = crossed_NC.narrow(1, 0, c), user.narrow(-1, h, c)
        if user.dim() == 1:
            return torch.addmv(deep_N, across_NC, user_C)
        return deep_N + (across_NC * user_C).sum(1)

    def _cross_weight_HK(self) -> Tensor:
        """The first layer's columns for the element-wise products, which come last."""
        return self.deep.first.linear.weight[:, -self.dim :]
