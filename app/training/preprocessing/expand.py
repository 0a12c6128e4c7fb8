"""Look up the table rows and numbers of slots that models are trained on, once, before training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.features.fields import SIDES
from app.models.preprocessing import Preprocessing
from app.models.side_input import SideInput, across_statistics
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.row_chunks import row_chunks
from app.training.shared_scratch_array import shared_scratch_array


class ExpandedRows(NamedTuple):
    """Holds N examples as models take them: table rows int64 [N, T], numbers [N, T], user side first, labels [N].

    Where there are target statistics of pairs across sides, they are further numbers behind the T.

    The tensors may be mapped from an unlinked file: they index as ever, and belong to this process alone.
    """

    rows_NT: Tensor
    x_NT: Tensor
    labels_N: Tensor
    weights_N: Tensor | None = None
    """Says how much each example counts in training [N]; None where all count the same."""
    units_N: Tensor | None = None
    """Numbers the rows of the file that examples are halves of [N]; None where they are whole rows."""

    @property
    def total_weight(self) -> float:
        """Return the sum of the weights; the number of examples where all count the same."""
        return float(len(self.labels_N) if self.weights_N is None else self.weights_N.double().sum())

    def take(self, index: Tensor | slice) -> ExpandedRows:
        """Return the examples at these positions."""
        weights_N, units_N = (None if part is None else part[index] for part in (self.weights_N, self.units_N))
        return ExpandedRows(self.rows_NT[index], self.x_NT[index], self.labels_N[index], weights_N, units_N)


def expand(
    preprocessing: Preprocessing, encoded: EncodedRows, machine_group: ProcessGroup = SINGLE_PROCESS
) -> ExpandedRows:
    """Look up table rows and numbers of encoded examples, by the very module that serving uses.

    Target statistics are those of all training rows, so that training rows take theirs from elsewhere
    (`app.training.preprocessing.target_statistics`).

    Args:
        machine_group: the processes of this machine, which share the work where the arrays go to a file.

    Raises:
        ConfigError: the scratch folder has too little room.
    """
    inputs = {side: SideInput(preprocessing, side) for side in SIDES}
    across = across_statistics(preprocessing)
    count, width = len(encoded.labels_N), sum(module.width for module in inputs.values())
    if encoded.scratch_folder is None:
        machine_group = SINGLE_PROCESS
    rows_NT, x_NT = (
        torch.from_numpy(
            shared_scratch_array(
                (count, columns), dtype, encoded.scratch_folder, machine_group, encoded.limits.heap_array_bytes
            )
        )
        for columns, dtype in ((width, np.int64), (width + across.width, np.float32))
    )
    own_rows = machine_group.own_slice(len(encoded.labels_N))
    column = 0
    for side in SIDES:
        side_columns = slice(column, column + inputs[side].width)
        column = side_columns.stop
        for chunk in row_chunks(own_rows, encoded.limits.chunk_rows):
            # Copied, because a mapped array is read-only and torch knows no such tensor.
            slots = (torch.from_numpy(np.array(part[chunk])) for part in encoded.side(side))
            rows_NT[chunk, side_columns], x_NT[chunk, side_columns] = inputs[side].expand(
                preprocessing.vocabulary_V, *slots
            )
    user_width = inputs["user"].width
    for chunk in row_chunks(own_rows, encoded.limits.chunk_rows) if across.width else ():
        x_NT[chunk, width:] = across(rows_NT[chunk, :user_width], rows_NT[chunk, user_width:])
    machine_group.barrier()
    weights = encoded.weights
    weights_N = None if weights is None else torch.from_numpy(weights.training_N)
    units_N = None if weights is None or weights.units_N is None else torch.from_numpy(weights.units_N)
    return ExpandedRows(rows_NT, x_NT, torch.from_numpy(encoded.labels_N), weights_N, units_N)
