"""The second DeepFM of SparrowRecSys: everything projected to one width, the pairwise part kept as a vector.

    p_j = P_j e_j + c_j for movie, user, movie genre and user genre, p_5 = P_5 [numerics] + c_5     (each of width 64)
    logit = w0 + sum_s w_s x_s + a . n + b . (S*S - Q) + v . h([p_1 .. p_5]),   S = sum_j p_j,  Q = sum_j p_j*p_j

n are the numerics, h the last of two hidden layers 32-16; all parts are concatenated before one sigmoid neuron, whose
weights b and v are. There is no 1/2 and no sum over the 64 in S*S - Q: b learns both. The first order is of every field
of the schema, numbers included, so a . n and the neuron's weight of it, which the original has, are in w_s. Fields of
different sizes could be crossed so: the projections are to a common one. Roles are found as in `deepfm_sparrow`.

Split, exactly, with p_5 = n_u + n_i: S = S_u + S_i, Q = Q_u + Q_i + (n_u + n_i)*(n_u + n_i), and the first hidden layer
is linear in the p.
    user state  [ W_u u + b (H) | 2 b*S_u, -2 b*n_u (2 x 64) | w0 + first order + b . (S_u*S_u - Q_u - n_u*n_u) ]
    item state  [ W_i i (H)     | S_i, n_i (2 x 64)          | first order + b . (S_i*S_i - Q_i - n_i*n_i) ]
"""

import torch
from torch import Tensor, nn

from app.features.fields import SIDES
from app.models.base import CtrModel
from app.models.field_roles import find_roles
from app.models.layers import SplitMlp
from app.models.preprocessing import Preprocessing


class DeepFMSparrowV2(CtrModel):
    """SparrowRecSys's second DeepFM; see the module for its formula and split."""

    name = "deepfm_sparrow_v2"
    has_first_order = True

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 10,
        hidden: tuple[int, ...] = (32, 16),
        dropout: float = 0.2,
        batch_norm: bool = True,
        projection: int = 64,
        movie: str | None = None,
        user: str | None = None,
        movie_genre: str | None = None,
        user_genre: str | None = None,
    ) -> None:
        """Raise ConfigError if the schema lacks a field that is named."""
        super().__init__(preprocessing, dim)
        roles = find_roles(preprocessing.schema, movie, user, movie_genre, user_genre)
        users, items = (list(preprocessing.layout(side).vectors) for side in SIDES)
        user_vectors = [users.index(name) for name in (roles.user, roles.user_genre) if name]
        item_vectors = [items.index(name) for name in (roles.movie, roles.movie_genre) if name]
        self.user_blocks = FieldProjection(user_vectors, dim, projection)
        self.item_blocks = FieldProjection(item_vectors, dim, projection)
        numbers = self.user.numeric_fields + self.item.numeric_fields
        self.numeric_DM = nn.Parameter(torch.randn(projection, numbers) / max(numbers, 1) ** 0.5)
        self.numeric_D = nn.Parameter(torch.zeros(projection))
        self.pairwise_D = nn.Parameter(torch.randn(projection) / projection)
        self.projection = projection
        # The block of numerics is the user half's last, so that the item half's columns and it are neighbours.
        user_width, item_width = (self.user_blocks.fields + 1) * projection, self.item_blocks.fields * projection
        self.deep = SplitMlp(user_width, item_width, hidden, dropout, batch_norm)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        split = self.user.width
        numbers_BD = self._user_numbers(self.user.numerics(x_BT[:, :split]))
        numbers_BD = numbers_BD + self._item_numbers(self.item.numerics(x_BT[:, split:]))
        user_BJD: Tensor = self.user_blocks(fields_BFE[:, : self.user.fields])
        item_BJD: Tensor = self.item_blocks(fields_BFE[:, self.user.fields :])
        p_BJD = torch.cat([user_BJD, numbers_BD.unsqueeze(1), item_BJD], 1)
        sum_BD = p_BJD.sum(1)
        pairs_B = torch.mv(sum_BD * sum_BD - (p_BJD * p_BJD).sum(1), self.pairwise_D)
        deep_B: Tensor = self.deep(p_BJD.flatten(1))
        return self.bias + fields_BFE[:, :, 0].sum(1) + pairs_B + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, numerics_BM = self.user_fields(keys_BS, values_BS)
        numbers_BD = self._user_numbers(numerics_BM)
        user_BJD: Tensor = self.user_blocks(fields_BFE)
        hidden_BH = self.deep.user_half(torch.cat([user_BJD.flatten(1), numbers_BD], 1))
        sum_BD, pairs_B = self._pairwise_half(user_BJD, numbers_BD)
        bias_B = self.bias + fields_BFE[:, :, 0].sum(1) + pairs_B
        cross_BD = torch.cat([2 * self.pairwise_D * sum_BD, -2 * self.pairwise_D * numbers_BD], 1)
        return torch.cat([hidden_BH, cross_BD, bias_B.unsqueeze(1)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, numerics_NM = self.item_fields(keys_NS, values_NS)
        numbers_ND = self._item_numbers(numerics_NM)
        item_NJD: Tensor = self.item_blocks(fields_NFE)
        columns = self.deep.first.linear.weight[:, self.deep.user_width - self.projection :]
        hidden_NH = nn.functional.linear(torch.cat([numbers_ND, item_NJD.flatten(1)], 1), columns)
        sum_ND, pairs_N = self._pairwise_half(item_NJD, numbers_ND)
        bias_N = fields_NFE[:, :, 0].sum(1) + pairs_N
        return torch.cat([hidden_NH, sum_ND, numbers_ND, bias_N.unsqueeze(1)], 1)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        h = self.deep.hidden
        deep_N = self.deep.output_of_halves(user_D[:h], items_ND[:, :h])
        return deep_N + torch.mv(items_ND[:, h:-1], user_D[h:-1]) + items_ND[:, -1] + user_D[-1]

    def _user_numbers(self, numerics_BM: Tensor) -> Tensor:
        return nn.functional.linear(numerics_BM, self.numeric_DM[:, : self.user.numeric_fields], self.numeric_D)

    def _item_numbers(self, numerics_NM: Tensor) -> Tensor:
        return nn.functional.linear(numerics_NM, self.numeric_DM[:, self.user.numeric_fields :])

    def _pairwise_half(self, p_BJD: Tensor, numbers_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Compute S [B, D], and b . (S*S - Q - n*n) [B], of one side."""
        sum_BD = p_BJD.sum(1) + numbers_BD
        pairs_BD = sum_BD * sum_BD - (p_BJD * p_BJD).sum(1) - numbers_BD * numbers_BD
        return sum_BD, torch.mv(pairs_BD, self.pairwise_D)


class FieldProjection(nn.Module):
    """A linear map of its own for each chosen field of a side, to a common width."""

    chosen_J: Tensor

    def __init__(self, chosen: list[int], dim: int, width: int) -> None:
        super().__init__()
        self.fields = len(chosen)
        self.register_buffer("chosen_J", torch.tensor(chosen, dtype=torch.int64))
        self.weight_JKD = nn.Parameter(torch.randn(len(chosen), dim, width) / dim**0.5)
        self.bias_JD = nn.Parameter(torch.zeros(len(chosen), width))

    def forward(self, fields_BFE: Tensor) -> Tensor:
        """Project the chosen fields, [B, J, D], of the side's field vectors [B, F, 1 + K]."""
        return torch.einsum("bjk,jkd->bjd", fields_BFE[:, self.chosen_J, 1:], self.weight_JKD) + self.bias_JD
