"""Embedding sizes that differ from field to field, projected to a common one where fields are crossed.

A field f of size k_f < K has its first k_f columns of the table as its embedding e_f; crosses take P_f e_f, with a
learned P_f [K, k_f] of its own, and a network takes e_f as it is. Fields with many values to tell apart get K columns,
a gender needs no more than two. The table gives every key K columns all the same: a size bounds what a field can learn,
and not the memory.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from app.errors import ConfigError
from app.features.schema import FeatureSchema
from app.models.field_roles import field_index, field_names
from app.models.pairwise import Crosses, Pairs, field_crosses

Sizes = Mapping[str, int]
"""Field name to k_f; `<name>:bucket` is the bucket of a number. Fields that it does not name have size K."""


def within_sizes(schema: FeatureSchema, dim: int, sizes: Sizes) -> Tensor:
    """[F, K] of both sides' fields, user side first: 1 where a column is within its field's size, else 0.

    Raises ConfigError where a size names no field, or is not between 1 and `dim`.
    """
    if wrong := [f"{name} has {size}" for name, size in sizes.items() if not 1 <= size <= dim]:
        raise ConfigError(f"dims: {', '.join(wrong)}; a size is from 1 to {dim}, the common one (--dim)")
    within_FK = torch.ones(len(field_names(schema)[0]), dim)
    for name, size in sizes.items():
        within_FK[field_index(schema, name), size:] = 0.0
    return within_FK


class ProjectedPairs(nn.Module):
    """`AllPairs` or `ChosenPairs` of embeddings of several sizes, each projected to the common one before."""

    user_J: Tensor
    item_J: Tensor
    within_JK1: Tensor

    def __init__(self, crosses: Pairs, within_FK: Tensor, user_fields: int) -> None:
        super().__init__()
        self.crosses, self.width, self.user_fields = crosses, crosses.width, user_fields
        dim = within_FK.shape[1]
        smaller_J = torch.nonzero(within_FK.sum(1) < dim).flatten()
        self.register_buffer("user_J", smaller_J[smaller_J < user_fields])
        self.register_buffer("item_J", smaller_J[smaller_J >= user_fields] - user_fields)
        self.register_buffer("within_JK1", within_FK[smaller_J].unsqueeze(2))
        scale_J11 = self.within_JK1.sum(1, keepdim=True).rsqrt()
        self.weight_JKK = nn.Parameter(torch.randn(len(smaller_J), dim, dim) * scale_J11)

    def forward(self, e_BFK: Tensor) -> Tensor:
        """[B, K] from the embeddings of both sides' fields; what is beyond a size is not looked at."""
        smaller_J = torch.cat([self.user_J, self.item_J + self.user_fields])
        crossed_BK: Tensor = self.crosses(self._projected(e_BFK, smaller_J, self._weights()))
        return crossed_BK

    def user_half(self, e_BFK: Tensor) -> tuple[Tensor, Tensor]:
        weight_JKK = self._weights()[: self.user_J.size(0)]
        return self.crosses.user_half(self._projected(e_BFK, self.user_J, weight_JKK))

    def item_half(self, e_NFK: Tensor) -> tuple[Tensor, Tensor]:
        weight_JKK = self._weights()[self.user_J.size(0) :]
        return self.crosses.item_half(self._projected(e_NFK, self.item_J, weight_JKK))

    def _weights(self) -> Tensor:
        return self.weight_JKK * self.within_JK1

    def _projected(self, e_BFK: Tensor, smaller_J: Tensor, weight_JKK: Tensor) -> Tensor:
        projected_BJK = torch.einsum("bjk,jkd->bjd", e_BFK.index_select(1, smaller_J), weight_JKK)
        return e_BFK.index_copy(1, smaller_J, projected_BJK)


def sized_crosses(
    schema: FeatureSchema, dim: int, crosses: Crosses | None, sizes: Sizes | None
) -> Pairs | ProjectedPairs:
    """`field_crosses`, of embeddings of these sizes. Raises ConfigError, as `within_sizes` does too."""
    pairs = field_crosses(schema, dim, crosses)
    if not sizes:
        return pairs
    return ProjectedPairs(pairs, within_sizes(schema, dim, sizes), field_names(schema)[1])
