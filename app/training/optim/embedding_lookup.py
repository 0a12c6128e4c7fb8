"""Slots to field vectors and back: e_f = sum over a field's slots of x_s w_s, and the gradient of the rows w that met.

Both ways are sums over bags, which torch does in one operator: forward a bag is a field of an example, backward it is
a table row. Backward needs the slots in the order of their rows, for which numpy is faster than torch on a processor.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.models.side_input import Preprocessing


class BatchRows(NamedTuple):
    """Table rows of a batch, each once, and for every slot of the computed examples which of them it is."""

    unique_U: Tensor
    slots_N: Tensor
    """int64 [B * T], places in `unique_U`."""
    x_N: Tensor


class EmbeddingLookup:
    """Finds the distinct table rows of a batch without sorting, by a note per row of the table."""

    def __init__(self, preprocessing: Preprocessing, rows: int, device: torch.device) -> None:
        fields = list(preprocessing.schema.vectors.values())
        self.width, self.fields = fields[-1].stop, len(fields)
        self.starts: list[int] = [slots.start for slots in fields]
        """First slot of each field."""
        self._starts_F = torch.tensor(self.starts, dtype=torch.int64, device=device)
        field_T = [field for field, slots in enumerate(fields) for _ in range(slots.start, slots.stop)]
        self._field_T = torch.tensor(field_T, dtype=torch.int64, device=device)
        self._on_cpu = device.type == "cpu"
        self._note_R = np.zeros(rows if self._on_cpu else 0, np.int32)
        self._layouts: dict[int, tuple[Tensor, Tensor]] = {}

    def used(self, rows_BT: Tensor, x_BT: Tensor, own: slice | None = None) -> BatchRows:
        """
        Args:
            own: the examples that will be computed; None all. `x_BT` is of these.
        """
        flat_N, x_N = rows_BT.reshape(-1), x_BT.reshape(-1)
        if not self._on_cpu:
            unique_U, slots_N = torch.unique(flat_N, return_inverse=True)
        else:
            numbers_N, note_R = flat_N.numpy(), self._note_R
            # Of the slots with the same row the last to write leaves its number, and stands for the row.
            every_N = np.arange(len(numbers_N), dtype=np.int32)
            note_R[numbers_N] = every_N
            unique = numbers_N[np.flatnonzero(note_R[numbers_N] == every_N)]
            note_R[unique] = every_N[: len(unique)]
            unique_U, slots_N = torch.from_numpy(unique), torch.from_numpy(note_R[numbers_N])
        if own is not None:
            slots_N = slots_N[own.start * self.width : own.stop * self.width]
        return BatchRows(unique_U, slots_N.to(torch.int64), x_N)

    def pooled(self, weights_UE: Tensor, used: BatchRows) -> Tensor:
        """Field vectors [B, F, E]."""
        offsets_BF, _ = self._layout(len(used.slots_N) // self.width)
        bags, *_ = torch.embedding_bag(weights_UE, used.slots_N, offsets_BF, False, 0, False, used.x_N, False)
        return bags.view(-1, self.fields, weights_UE.shape[1])

    def scattered(self, fields_BFE: Tensor, used: BatchRows) -> Tensor:
        """Gradient [U, E] of the rows, from the gradient of the field vectors."""
        count = len(used.unique_U)
        _, field_N = self._layout(len(fields_BFE))
        flat_GE = fields_BFE.reshape(-1, fields_BFE.shape[-1])
        if not self._on_cpu:
            slots_NE = flat_GE.index_select(0, field_N) * used.x_N.unsqueeze(1)
            return slots_NE.new_zeros(count, slots_NE.shape[1]).index_add_(0, used.slots_N, slots_NE)
        slots = used.slots_N.numpy()
        # Numbers of 16 bits are sorted digit by digit, several times faster than larger ones.
        order = np.argsort(slots.astype(np.uint16 if count <= 1 << 16 else np.int32), kind="stable")
        counts = np.bincount(slots, minlength=count)
        starts_U = torch.from_numpy(np.cumsum(counts) - counts)
        fields, x_N = torch.from_numpy(field_N.numpy()[order]), torch.from_numpy(used.x_N.numpy()[order])
        bags, *_ = torch.embedding_bag(flat_GE, fields, starts_U, False, 0, False, x_N, False)
        return bags

    def _layout(self, examples: int) -> tuple[Tensor, Tensor]:
        """First slot of each field [B * F], and the field of each slot [B * T], of so many examples."""
        if examples not in self._layouts:
            if len(self._layouts) > 8:
                self._layouts.clear()
            number_B1 = torch.arange(examples, device=self._starts_F.device).unsqueeze(1)
            offsets_BF = (number_B1 * self.width + self._starts_F).reshape(-1)
            self._layouts[examples] = offsets_BF, (number_B1 * self.fields + self._field_T).reshape(-1)
        return self._layouts[examples]
