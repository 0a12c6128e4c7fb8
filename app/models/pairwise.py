"""Second-order crosses of field embeddings, kept as vectors: sum over pairs (f, g) of a_fg e_f * e_g, [B, K].

Their sum over K is the pairwise term of a factorisation machine (inner products); as they are, they are the
bi-interaction pooling of He & Chua 2017 (element-wise products). Both forms split alike:

    crosses(u, i) = within_u + within_i + sum_j U_j * I_j

with U, I [B, J*K] the halves of the pairs across sides: S_u and S_i (J = 1) where all pairs are crossed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from app.errors import ConfigError
from app.features.schema import FeatureSchema
from app.models.field_roles import field_index, field_names

Crosses = Sequence[tuple[str, str]]
"""Pairs of field names; `<name>:bucket` is the bucket of a number."""


class AllPairs(nn.Module):
    """Every pair once: 1/2 (S*S - Q) (Rendle 2010, lemma 3.1; He & Chua 2017, eq. 4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.width = dim
        """Of a half across sides."""

    def forward(self, e_BFK: Tensor) -> Tensor:
        """[B, K] from the embeddings of both sides' fields."""
        return self.user_half(e_BFK)[1]

    def user_half(self, e_BFK: Tensor) -> tuple[Tensor, Tensor]:
        """S [B, K], and the pairs within this side [B, K]."""
        sum_BK = e_BFK.sum(1)
        return sum_BK, 0.5 * (sum_BK * sum_BK - (e_BFK * e_BFK).sum(1))

    def item_half(self, e_NFK: Tensor) -> tuple[Tensor, Tensor]:
        return self.user_half(e_NFK)


class ChosenPairs(nn.Module):
    """Only these pairs, each with a weight: 1, or learned (as in Pan et al. 2018, eq. 5, which crosses all pairs)."""

    left_P: Tensor
    right_P: Tensor
    crossed_J: Tensor
    weight_P: Tensor

    def __init__(
        self, pairs: Sequence[tuple[int, int]], fields: int, user_fields: int, dim: int, learned: bool
    ) -> None:
        """
        Args:
            pairs: places among the field vectors of both sides, user side first.
            fields, user_fields: how many field vectors there are, and how many of them are the user side's.
        """
        super().__init__()
        self.fields, self.user_fields = fields, user_fields
        ordered = sorted({(min(pair), max(pair)) for pair in pairs})
        self.register_buffer("left_P", torch.tensor([left for left, _ in ordered], dtype=torch.int64))
        self.register_buffer("right_P", torch.tensor([right for _, right in ordered], dtype=torch.int64))
        if learned:
            self.weight_P = nn.Parameter(torch.ones(len(ordered)))
        else:
            self.register_buffer("weight_P", torch.ones(len(ordered)))
        crossed = sorted({right for left, right in ordered if left < user_fields <= right})
        self.register_buffer("crossed_J", torch.tensor(crossed, dtype=torch.int64))
        self.width = len(crossed) * dim
        """Of a half across sides: J item fields are crossed with user fields."""

    def forward(self, e_BFK: Tensor) -> Tensor:
        """[B, K] from the embeddings of both sides' fields."""
        return (torch.matmul(self.weights(), e_BFK) * e_BFK).sum(1)

    def user_half(self, e_BFK: Tensor) -> tuple[Tensor, Tensor]:
        """What each crossed item field is multiplied by, [B, J * K], and the pairs within this side [B, K]."""
        a_FF, u = self.weights(), self.user_fields
        across_BJK = torch.matmul(a_FF[:u, self.crossed_J].t(), e_BFK)
        return across_BJK.flatten(1), (torch.matmul(a_FF[:u, :u], e_BFK) * e_BFK).sum(1)

    def item_half(self, e_NFK: Tensor) -> tuple[Tensor, Tensor]:
        """The crossed item fields' embeddings [N, J * K], and the pairs within this side [N, K]."""
        a_FF, u = self.weights(), self.user_fields
        return e_NFK[:, self.crossed_J - u].flatten(1), (torch.matmul(a_FF[u:, u:], e_NFK) * e_NFK).sum(1)

    def weights(self) -> Tensor:
        """a_fg at [f, g], f < g, and 0 for all other places."""
        zeros_FF = torch.zeros(self.fields, self.fields, dtype=self.weight_P.dtype, device=self.weight_P.device)
        return zeros_FF.index_put([self.left_P, self.right_P], self.weight_P)


Pairs = AllPairs | ChosenPairs


def field_crosses(schema: FeatureSchema, dim: int, crosses: Crosses | None, learned: bool = False) -> Pairs:
    """All pairs, or the chosen ones. Raises ConfigError where a pair names no field, or one field twice."""
    if crosses is None:
        return AllPairs(dim)
    names, user_fields = field_names(schema)
    if not crosses:
        raise ConfigError("crosses: name at least one pair of fields, or leave it out to cross all")
    pairs = [(field_index(schema, left), field_index(schema, right)) for left, right in crosses]
    if any(left == right for left, right in pairs):
        raise ConfigError("crosses: a field cannot be crossed with itself")
    return ChosenPairs(pairs, len(names), user_fields, dim, learned)
