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
from app.models.preprocessing import Preprocessing

FieldPairs = Sequence[tuple[str, str]]
"""Pairs of names of field vectors; `<name>:bucket` is the bucket of a number."""


class AllPairs(nn.Module):
    """Every pair once: 1/2 (S*S - Q) (Rendle 2010, lemma 3.1; He & Chua 2017, eq. 4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.cross_width = dim
        """Width of a half of the pairs across sides: K."""

    def forward(self, e_BFK: Tensor) -> Tensor:
        """Compute the crosses [B, K] of both sides' embeddings."""
        return self.user_half(e_BFK)[1]

    def user_half(self, e_BFK: Tensor) -> tuple[Tensor, Tensor]:
        """Compute S [B, K], and the pairs within this side [B, K]."""
        sum_BK = e_BFK.sum(1)
        return sum_BK, 0.5 * (sum_BK * sum_BK - (e_BFK * e_BFK).sum(1))

    def item_half(self, e_NFK: Tensor) -> tuple[Tensor, Tensor]:
        """Compute S [N, K], and the pairs within this side [N, K]."""
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
            pairs: indices among the field vectors of both sides, user side first.
            fields: how many field vectors there are.
            user_fields: how many of them are the user side's.
            learned: whether the weights are parameters.
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
        self.cross_width = len(crossed) * dim
        """Width of a half of the pairs across sides: J * K, as J item fields are crossed with user fields."""

    def forward(self, e_BFK: Tensor) -> Tensor:
        """Compute the crosses [B, K] of both sides' embeddings."""
        return (torch.matmul(self.weights(), e_BFK) * e_BFK).sum(1)

    def user_half(self, e_BFK: Tensor) -> tuple[Tensor, Tensor]:
        """Compute each crossed item field's factor, [B, J * K], and the pairs within this side [B, K]."""
        a_FF, u = self.weights(), self.user_fields
        cross_BJK = torch.matmul(a_FF[:u, self.crossed_J].t(), e_BFK)
        return cross_BJK.flatten(1), (torch.matmul(a_FF[:u, :u], e_BFK) * e_BFK).sum(1)

    def item_half(self, e_NFK: Tensor) -> tuple[Tensor, Tensor]:
        """Gather the crossed item fields' embeddings [N, J * K], and compute the pairs within this side [N, K]."""
        a_FF, u = self.weights(), self.user_fields
        return e_NFK[:, self.crossed_J - u].flatten(1), (torch.matmul(a_FF[u:, u:], e_NFK) * e_NFK).sum(1)

    def weights(self) -> Tensor:
        """Return a_fg at [f, g], f < g, and 0 elsewhere: [F, F]."""
        zeros_FF = torch.zeros(self.fields, self.fields, dtype=self.weight_P.dtype, device=self.weight_P.device)
        return zeros_FF.index_put([self.left_P, self.right_P], self.weight_P)


def chosen_or_all_pairs(
    preprocessing: Preprocessing, dim: int, pairs: FieldPairs | None, learned: bool = False
) -> AllPairs | ChosenPairs:
    """Return the crosses of the chosen pairs, or of all pairs if None.

    Raises ConfigError if a pair names no field, or one field twice, or if no pair is chosen.
    """
    if pairs is None:
        return AllPairs(dim)
    if not pairs:
        raise ConfigError("crosses: name at least one pair of fields, or leave it out to cross all")
    indices = [(vector_index(preprocessing, left), vector_index(preprocessing, right)) for left, right in pairs]
    if any(left == right for left, right in indices):
        raise ConfigError("crosses: a field cannot be crossed with itself")
    return ChosenPairs(indices, len(preprocessing.vectors), len(preprocessing.layout("user").vectors), dim, learned)


def vector_index(preprocessing: Preprocessing, name: str) -> int:
    """Return the index of a field vector among the F of both sides. Raises ConfigError if the schema has none."""
    names = list(preprocessing.vectors)
    if name not in names:
        raise ConfigError(f"there is no field {name!r} to cross; the schema has {', '.join(names)}")
    return names.index(name)
