"""From raw rows to table rows: fit what preprocessing learns, encode with the one encoder, expand once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.features.schema import FeatureSchema, Numeric, Side
from app.features.slots import EMPTY_KEY, Slots, Values
from app.models.side_input import Preprocessing, SideInput, numeric_key
from app.training.data.dataset import Dataset, without_nan
from app.training.data.mapped_dataset import MappedDataset
from app.training.data.readers.bad_rows import Skipped
from app.training.data.table_encoder import TableEncoder
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.preprocessing.key_counts import KeyCounts
from app.training.preprocessing.numeric_statistics import fit_numerics
from app.training.preprocessing.numeric_statistics import numeric_statistics as numeric_statistics
from app.training.scratch_array import shared_room

CHUNK_ROWS = 65_536
SIDES: tuple[Side, Side] = ("user", "item")


class Rows(NamedTuple):
    """N examples as models take them: table rows int64 [N, T] and numbers [N, T], user side first, and labels [N].

    The tensors may be mapped from a file without a name: they index as ever, and are this process's own.
    """

    rows_NT: Tensor
    x_NT: Tensor
    labels_N: Tensor


class Encoded(NamedTuple):
    """N examples as slots. The arrays may be mapped from a file and read-only: take rows of them, not whole copies."""

    user: Slots
    item: Slots
    labels_N: npt.NDArray[np.float32]
    unreadable: dict[str, Skipped]
    """Field name to the rows whose value no slot can hold; there the field counts as missing, as in serving."""
    scratch: Path | None = None
    """Where arrays made of these that are larger than memory may lie; None where they are not."""

    def side(self, side: Side) -> Slots:
        return self.user if side == "user" else self.item


@dataclass(frozen=True)
class Preparation:
    """What is fitted on the training rows; `min_count` is how often a category must occur to get its own row."""

    min_count: int = 2

    def fit(self, schema: FeatureSchema, train: Encoded, group: ProcessGroup = SINGLE_PROCESS) -> Preprocessing:
        """One pass over the slots for the categories and two over the numbers, in chunks. All counts are exact.

        Args:
            group: the processes that have these rows, of which each goes over its part; they find the same.
        """
        own = group.own_slice(len(train.labels_N))
        counts = KeyCounts(train.scratch)
        numerics = {}
        for side in SIDES:
            places: list[int] = []
            numbers: dict[int, Numeric] = {}
            start = 0
            for field in schema.side(side):
                if isinstance(field, Numeric):
                    numbers[start] = field
                else:
                    places.extend(range(start, start + field.width))
                start += field.width
            slots, fields, columns = train.side(side), list(numbers.values()), np.array(list(numbers), np.int64)
            chosen = np.array(places, np.int64)
            for keys, values in _chunks(slots, own) if places else ():
                counts.add(keys[:, chosen][values[:, chosen] != 0.0])

            def values_of(slots: Slots = slots, columns: npt.NDArray[np.int64] = columns) -> Iterator[Values]:
                return (values[:, columns] for _, values in _chunks(slots, own))

            numerics.update(fit_numerics(fields, values_of, group))
        fixed = [EMPTY_KEY, *(numeric_key(name) for name in numerics)]
        vocabulary = np.union1d(counts.at_least(self.min_count, group), np.array(fixed, np.int64))
        return Preprocessing(schema, torch.from_numpy(vocabulary), numerics)


def _chunks(slots: Slots, own: slice) -> Iterator[Slots]:
    for chunk in _places(own):
        yield Slots(slots.keys[chunk], slots.values[chunk])


def _places(own: slice) -> Iterator[slice]:
    for start in range(own.start, own.stop, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, own.stop))


def encode(data: Dataset, machine_group: ProcessGroup = SINGLE_PROCESS) -> Encoded:
    """Slots of a dataset's rows.

    Args:
        machine_group: the processes of this machine, which gather the rows of a mapped dataset together; others
            each encode all rows.

    Raises:
        DataError: a field has more than `data.max_bad` values that cannot be read.
    """
    if isinstance(data, MappedDataset):
        unreadable = data.folder.unreadable if data.folder else {}
        user, item = (data.slots(side, machine_group) for side in SIDES)
        return Encoded(user, item, data.labels_N, unreadable, data.scratch)
    encoder = TableEncoder(data.schema, data.source, data.max_bad)
    numbers_N = np.arange(1, len(data) + 1)
    user, item = (encoder.slots(side, without_nan(data.side(side)), numbers_N) for side in SIDES)
    encoder.check(len(data))
    return Encoded(user, item, data.labels_N, encoder.unreadable)


def expand(preprocessing: Preprocessing, encoded: Encoded, machine_group: ProcessGroup = SINGLE_PROCESS) -> Rows:
    """Table rows and numbers of encoded examples, by the very module that serving uses.

    Args:
        machine_group: the processes of this machine, which share the work where the arrays go to a file.
    """
    inputs = {side: SideInput(preprocessing, side) for side in SIDES}
    shape = len(encoded.labels_N), sum(module.width for module in inputs.values())
    if encoded.scratch is None:
        machine_group = SINGLE_PROCESS
    rows_NT, x_NT = (
        torch.from_numpy(shared_room(shape, dtype, encoded.scratch, machine_group)) for dtype in (np.int64, np.float32)
    )
    own = machine_group.own_slice(len(encoded.labels_N))
    column = 0
    for side in SIDES:
        place = slice(column, column + inputs[side].width)
        column = place.stop
        for chunk in _places(own):
            # Copied, because a mapped array is read-only and torch knows no such tensor.
            slots = (torch.from_numpy(np.array(part[chunk])) for part in encoded.side(side))
            rows_NT[chunk, place], x_NT[chunk, place] = inputs[side].expand(preprocessing.vocabulary_V, *slots)
    machine_group.barrier()
    return Rows(rows_NT, x_NT, torch.from_numpy(encoded.labels_N))
