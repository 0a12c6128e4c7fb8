"""Pool slots to field vectors, e_f = sum over a field's slots of x_s w_s, and compute the gradient of the rows w.

Both ways are sums over bags, which torch does in one operator: forward a bag is a field of an example, backward it is
a table row. Backward needs the slots in the order of their rows, for which numpy is faster than torch on the CPU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.models.preprocessing import Preprocessing


class BatchRows(NamedTuple):
    """Holds the distinct table rows of a batch, and which of them each slot of the computed examples reads."""

    unique_U: Tensor
    index_N: Tensor
    """Positions [O * T] in `unique_U`, int64."""
    x_N: Tensor
    """The slots' numbers [O * T]."""


class EmbeddingLookup:
    """Pools table rows to field vectors, and scatters gradients of field vectors to table rows."""

    def __init__(
        self, preprocessing: Preprocessing, rows: int, device: torch.device, numpy_on_cpu: bool = True
    ) -> None:
        """Prepare the lookup of a table.

        Args:
            rows: the number of rows of the table.
            numpy_on_cpu: whether to find and sum up rows by numpy on the CPU, as is faster, and not as on a GPU.
        """
        vectors = preprocessing.vectors
        self.field_count, self.slot_count = len(vectors), sum(slots.stop - slots.start for slots in vectors.values())
        self.field_starts = [slots.start for slots in vectors.values()]
        """First slot of each field."""
        self._starts_F = torch.tensor(self.field_starts, dtype=torch.int64, device=device)
        field_of_T = torch.zeros(self.slot_count, dtype=torch.int64)
        field_of_T[[start for start in self.field_starts if start < self.slot_count]] = 1
        self._field_T = (field_of_T.cumsum(0) - 1).to(device)
        self._by_numpy = device.type == "cpu" and numpy_on_cpu
        self._slot_R = np.zeros(rows if self._by_numpy else 0, np.int32)
        """A scratch number for each table row, to find distinct rows without sorting."""
        self._layouts: dict[int, tuple[Tensor, Tensor]] = {}

    def find_unique(self, rows_BT: Tensor, x_OT: Tensor, part: slice | None = None) -> BatchRows:
        """Find the distinct table rows of a batch.

        Args:
            x_OT: their numbers; those behind the T belong to no table row.
            part: the examples that will be computed, to which x_OT belongs; None means all.
        """
        flat_N, x_N = rows_BT.reshape(-1), x_OT[:, : self.slot_count].reshape(-1)
        if not self._by_numpy:
            unique_U, index_N = torch.unique(flat_N, return_inverse=True)
        else:
            rows_N, slot_R = flat_N.numpy(), self._slot_R
            # If several slots have the same row, the last one to write its position stands for the row.
            every_N = np.arange(len(rows_N), dtype=np.int32)
            slot_R[rows_N] = every_N
            unique = rows_N[np.flatnonzero(slot_R[rows_N] == every_N)]
            slot_R[unique] = every_N[: len(unique)]
            unique_U, index_N = torch.from_numpy(unique), torch.from_numpy(slot_R[rows_N])
        if part is not None:
            index_N = index_N[part.start * self.slot_count : part.stop * self.slot_count]
        return BatchRows(unique_U, index_N.to(torch.int64), x_N)

    def pool(self, weights_UE: Tensor, batch: BatchRows) -> Tensor:
        """Compute field vectors [O, F, E] from the distinct rows' weights."""
        offsets_OF, _ = self._layout(len(batch.index_N) // self.slot_count)
        bags, *_ = torch.embedding_bag(weights_UE, batch.index_N, offsets_OF, False, 0, False, batch.x_N, False)
        return bags.view(-1, self.field_count, weights_UE.shape[1])

    def scatter(self, slope_OFE: Tensor, batch: BatchRows) -> Tensor:
        """Compute the gradient [U, E] of the distinct rows from the gradient of the field vectors."""
        count = len(batch.unique_U)
        _, field_N = self._layout(len(slope_OFE))
        flat_GE = slope_OFE.reshape(-1, slope_OFE.shape[-1])
        if not self._by_numpy:
            slope_NE = flat_GE.index_select(0, field_N) * batch.x_N.unsqueeze(1)
            return slope_NE.new_zeros(count, slope_NE.shape[1]).index_add_(0, batch.index_N, slope_NE)
        index = batch.index_N.numpy()
        # numpy sorts numbers of 16 bits digit by digit, several times faster than larger ones.
        order = np.argsort(index.astype(np.uint16 if count <= 1 << 16 else np.int32), kind="stable")
        counts = np.bincount(index, minlength=count)
        starts_U = torch.from_numpy(np.cumsum(counts) - counts)
        fields, x_N = torch.from_numpy(field_N.numpy()[order]), torch.from_numpy(batch.x_N.numpy()[order])
        bags, *_ = torch.embedding_bag(flat_GE, fields, starts_U, False, 0, False, x_N, False)
        return bags

    def _layout(self, examples: int) -> tuple[Tensor, Tensor]:
        """Return the first slot of each field [O * F], and the field of each slot [O * T]."""
        if examples not in self._layouts:
            if len(self._layouts) > 8:
                self._layouts.clear()
            example_O1 = torch.arange(examples, device=self._starts_F.device).unsqueeze(1)
            offsets_OF = (example_O1 * self.slot_count + self._starts_F).reshape(-1)
            self._layouts[examples] = offsets_OF, (example_O1 * self.field_count + self._field_T).reshape(-1)
        return self._layouts[examples]
