"""Look up the table rows and numbers of slots that models are trained on, once, before training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.features.fields import SIDES
from app.models.preprocessing import Preprocessing
from app.models.side_input import SideInput
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.row_chunks import row_chunks
from app.training.shared_scratch_array import shared_scratch_array


class ExpandedRows(NamedTuple):
    """Holds N examples as models take them: table rows int64 [N, T], numbers [N, T], user side first, labels [N].

    The tensors may be mapped from an unlinked file: they index as ever, and belong to this process alone.
    """

    rows_NT: Tensor
    x_NT: Tensor
    labels_N: Tensor


def expand(
    preprocessing: Preprocessing, encoded: EncodedRows, machine_group: ProcessGroup = SINGLE_PROCESS
) -> ExpandedRows:
    """Look up table rows and numbers of encoded examples, by the very module that serving uses.

    Args:
        machine_group: the processes of this machine, which share the work where the arrays go to a file.

    Raises:
        ConfigError: the scratch folder has too little room.
    """
    inputs = {side: SideInput(preprocessing, side) for side in SIDES}
    shape = len(encoded.labels_N), sum(module.width for module in inputs.values())
    if encoded.scratch_folder is None:
        machine_group = SINGLE_PROCESS
    rows_NT, x_NT = (
        torch.from_numpy(
            shared_scratch_array(shape, dtype, encoded.scratch_folder, machine_group, encoded.limits.heap_array_bytes)
        )
        for dtype in (np.int64, np.float32)
    )
    own_rows = machine_group.own_slice(len(encoded.labels_N))
    column = 0
    for side in SIDES:
        columns = slice(column, column + inputs[side].width)
        column = columns.stop
        for chunk in row_chunks(own_rows, encoded.limits.chunk_rows):
            # Copied, because a mapped array is read-only and torch knows no such tensor.
            slots = (torch.from_numpy(np.array(part[chunk])) for part in encoded.side(side))
            rows_NT[chunk, columns], x_NT[chunk, columns] = inputs[side].expand(preprocessing.vocabulary_V, *slots)
    machine_group.barrier()
    return ExpandedRows(rows_NT, x_NT, torch.from_numpy(encoded.labels_N))
