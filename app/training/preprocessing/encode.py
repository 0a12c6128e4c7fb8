"""Encode raw rows as slots, by the one encoder that serving uses too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.features.fields import SIDES, Side
from app.features.slots import Slots
from app.training.data.dataset import Dataset, without_nan
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.mapped_dataset import MappedDataset
from app.training.data.readers.bad_rows import SkippedRows
from app.training.data.row_weights import RowWeights
from app.training.data.table_encoder import TableEncoder
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.evaluation.weighting import Weighting
from app.training.preprocessing.row_chunks import row_chunks
from app.training.shared_scratch_array import shared_scratch_array


class EncodedRows(NamedTuple):
    """Holds N examples as slots. The arrays may be mapped and read-only: take rows of them, not whole copies."""

    user: Slots
    item: Slots
    labels_N: npt.NDArray[np.float32]
    unreadable: dict[str, SkippedRows]
    """Records the rows, by field name, whose value fits no slot; there the field counts as missing, as in serving."""
    scratch_folder: Path | None = None
    """Names the folder for arrays that are larger than memory; None if the rows fit in memory."""
    limits: EncodingLimits = DEFAULT_LIMITS
    weights: RowWeights | None = None
    """Says how much each row counts; None where all count the same."""

    @property
    def weighting(self) -> Weighting | None:
        """Return how much each row counts in metrics; None where all count the same."""
        return None if self.weights is None else self.weights.in_evaluation

    @property
    def learned_weighting(self) -> Weighting | None:
        """Return how much each row counts in what is learned; None where all count the same."""
        return None if self.weights is None else self.weights.in_training

    def side(self, side: Side) -> Slots:
        return self.user if side == "user" else self.item

    def slot_chunks(self, side: Side, rows: slice) -> Iterator[Slots]:
        """Yield one side's slots of these rows, a bounded number of rows at a time."""
        slots = self.side(side)
        for chunk in row_chunks(rows, self.limits.chunk_rows):
            yield Slots(slots.keys[chunk], slots.values[chunk])


def encode(data: Dataset, machine_group: ProcessGroup = SINGLE_PROCESS) -> EncodedRows:
    """Encode a dataset's rows.

    Args:
        machine_group: the processes of this machine, which gather the rows of a mapped dataset together. Rows in
            memory are encoded by every process, all of them.

    Raises:
        ConfigError: the scratch folder has too little room.
        DataError: a field has more than `data.max_bad` values that cannot be read.
    """
    if isinstance(data, MappedDataset):
        user, item = (_mapped_slots(data, side, machine_group) for side in SIDES)
        return EncodedRows(user, item, data.labels_N, data.unreadable, data.scratch_folder, data.limits, data.weights)
    encoder = TableEncoder(data.schema, data.source, data.max_bad)
    numbers_N = np.arange(1, len(data) + 1)
    user, item = (encoder.slots(side, without_nan(data.side(side)), numbers_N) for side in SIDES)
    encoder.check(len(data))
    return EncodedRows(user, item, data.labels_N, encoder.unreadable, weights=data.weights)


def _mapped_slots(data: MappedDataset, side: Side, machine_group: ProcessGroup) -> Slots:
    """Return mapped slots where the rows lie together, or gather them into an unlinked file."""
    mapped = data.mapped_slots(side)
    if mapped is not None:
        return mapped
    shape = len(data), data.slot_width(side)
    keys, values = (
        shared_scratch_array(shape, dtype, data.scratch_folder, machine_group, data.limits.heap_array_bytes)
        for dtype in (np.int64, np.float32)
    )
    slots = Slots(keys, values)
    data.gather_slots(side, machine_group.own_slice(len(data)), slots)
    machine_group.barrier()
    return slots
