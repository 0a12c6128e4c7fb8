"""Raw rows to slots, by the one encoder that serving uses too."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.features.fields import SIDES, Side
from app.features.slots import Slots
from app.training.data.dataset import Dataset, without_nan
from app.training.data.mapped_dataset import MappedDataset
from app.training.data.readers.bad_rows import Skipped
from app.training.data.table_encoder import TableEncoder
from app.training.distributed import SINGLE_PROCESS, ProcessGroup


class EncodedRows(NamedTuple):
    """N examples as slots. The arrays may be mapped from a file and read-only: take rows of them, not whole copies."""

    user: Slots
    item: Slots
    labels_N: npt.NDArray[np.float32]
    unreadable: dict[str, Skipped]
    """The rows, by field name, whose value fits no slot; there the field counts as missing, as in serving."""
    scratch: Path | None = None
    """The folder for arrays made of these rows that are larger than memory; None where the rows fit in memory."""

    def side(self, side: Side) -> Slots:
        return self.user if side == "user" else self.item


def encode(data: Dataset, machine_group: ProcessGroup = SINGLE_PROCESS) -> EncodedRows:
    """Encode a dataset's rows.

    Args:
        machine_group: the processes of this machine, which gather the rows of a mapped dataset together. Rows in
            memory are encoded by every process, all of them.

    Raises:
        DataError: a field has more than `data.max_bad` values that cannot be read.
    """
    if isinstance(data, MappedDataset):
        unreadable = data.folder.unreadable if data.folder else {}
        user, item = (data.slots(side, machine_group) for side in SIDES)
        return EncodedRows(user, item, data.labels_N, unreadable, data.scratch)
    encoder = TableEncoder(data.schema, data.source, data.max_bad)
    numbers_N = np.arange(1, len(data) + 1)
    user, item = (encoder.slots(side, without_nan(data.side(side)), numbers_N) for side in SIDES)
    encoder.check(len(data))
    return EncodedRows(user, item, data.labels_N, encoder.unreadable)
