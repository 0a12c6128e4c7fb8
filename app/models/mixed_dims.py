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
from app.models.pairwise import AllPairs, ChosenPairs, FieldPairs, chosen_or_all_pairs, vector_index
from app.models.preprocessing import Preprocessing

FieldDims = Mapping[str, int]
"""Embedding sizes k_f by name of the field vector; `<name>:bucket` is a number's bucket. Others have size K."""


def dims_mask(preprocessing: Preprocessing, dim: int, dims: FieldDims) -> Tensor:
    """Return [F, K] of both sides' fields, user side first: 1 where a column is within its field's size, else 0.

    Raises ConfigError if a size names no field, or is not between 1 and `dim`.
    """
    if wrong := [f"{name} has {size}" for name, size in dims.items() if not 1 <= size <= dim]:
        raise ConfigError(f"dims: {', '.join(wrong)}; a size is from 1 to {dim}, the common one (--dim)")
    mask_FK = torch.ones(len(preprocessing.vectors), dim)
    for name, size in dims.items():
        mask_FK[vector_index(preprocessing, name), size:] = 0.0
    return mask_FK


class ProjectedPairs(nn.Module):
    """`AllPairs` or `ChosenPairs` of embeddings of several sizes, each projected to the common one before."""

    user_J: Tensor
    item_J: Tensor
    mask_JK1: Tensor

    def __init__(self, crosses: AllPairs | ChosenPairs, mask_FK: Tensor, user_fields: int) -> None:
        """
        Args:
            mask_FK: which columns are within their field's size, as `dims_mask` returns it.
            user_fields: how many of the F field vectors are the user side's.
        """
        super().__init__()
        self.crosses, self.cross_width, self.user_fields = crosses, crosses.cross_width, user_fields
        dim = mask_FK.shape[1]
        smaller_J = torch.nonzero(mask_FK.sum(1) < dim).flatten()
        self.register_buffer("user_J", smaller_J[smaller_J < user_fields])
        self.register_buffer("item_J", smaller_J[smaller_J >= user_fields] - user_fields)
        self.register_buffer("mask_JK1", mask_FK[smaller_J].unsqueeze(2))
        scale_J11 = self.mask_JK1.sum(1, keepdim=True).rsqrt()
        self.weight_JKK = nn.Parameter(torch.randn(len(smaller_J), dim, dim) * scale_J11)

    def forward(self, e_BFK: Tensor) -> Tensor:
        """Compute the crosses [B, K] of both sides' embeddings, ignoring columns beyond a field's size."""
        smaller_J = torch.cat([self.user_J, self.item_J + self.user_fields])
        crosses_BK: Tensor = self.crosses(self._project(e_BFK, smaller_J, self._projections()))
        return crosses_BK

    def user_half(self, e_BFK: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the user side's halves, as the crosses of `app.models.pairwise` do."""
        weight_JKK = self._projections()[: self.user_J.size(0)]
        return self.crosses.user_half(self._project(e_BFK, self.user_J, weight_JKK))

    def item_half(self, e_NFK: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the item side's halves, as the crosses of `app.models.pairwise` do."""
        weight_JKK = self._projections()[self.user_J.size(0) :]
        return self.crosses.item_half(self._project(e_NFK, self.item_J, weight_JKK))

    def _projections(self) -> Tensor:
        return self.weight_JKK * self.mask_JK1

    def _project(self, e_BFK: Tensor, smaller_J: Tensor, weight_JKK: Tensor) -> Tensor:
        projected_BJK = torch.einsum("bjk,jkd->bjd", e_BFK.index_select(1, smaller_J), weight_JKK)
        return e_BFK.index_copy(1, smaller_J, projected_BJK)


def crosses_of(
    preprocessing: Preprocessing, dim: int, pairs: FieldPairs | None, dims: FieldDims | None
) -> AllPairs | ChosenPairs | ProjectedPairs:
    """Return the crosses of the chosen pairs, or of all if None, projected if embeddings have sizes of their own.

    Raises ConfigError if a pair or a size does not fit the schema.
    """
    crosses = chosen_or_all_pairs(preprocessing, dim, pairs)
    if not dims:
        return crosses
    return ProjectedPairs(crosses, dims_mask(preprocessing, dim, dims), len(preprocessing.layout("user").vectors))
