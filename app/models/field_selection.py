"""The part of one side that a network reads, if it does not read all of it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FieldSelection(nn.Module):
    """Some of a side's embeddings, concatenated, and its numbers unless they are left out."""

    chosen_F: Tensor

    def __init__(self, fields: Sequence[int], dim: int, numerics: int) -> None:
        """
        Args:
            fields: indices among the side's field vectors.
            dim: embedding size K.
            numerics: how many numbers the side has; 0 leaves them out.
        """
        super().__init__()
        self.width = len(fields) * dim + numerics
        self.with_numerics = numerics > 0
        self.register_buffer("chosen_F", torch.tensor(list(fields), dtype=torch.int64))

    def forward(self, fields_BFE: Tensor, numerics_BM: Tensor) -> Tensor:
        """Concatenate [B, width] from the side's field vectors [B, F, 1 + K] and numbers [B, M]."""
        embeddings_BD = fields_BFE[:, self.chosen_F, 1:].flatten(1)
        return torch.cat([embeddings_BD, numerics_BM], 1) if self.with_numerics else embeddings_BD
