"""Hold the labels and times of a dataset that is larger than memory, and map its slots from the encoded folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from app.features.fields import Side
from app.features.slots import Slots
from app.training.data.dataset import ID_COLUMN, Dataset
from app.training.data.encoded_folder import EncodedFolder
from app.training.data.encoding_limits import EncodingLimits
from app.training.data.readers.bad_rows import BadRows, SkippedRows
from app.training.data.readers.mixed_columns import stack_frames
from app.training.data.source import Source

TIME_COLUMN = "\x1ftime"
"""No raw field has such a name."""


@dataclass(frozen=True)
class MappedDataset(Dataset):
    """Maps the slots of all its rows from the encoded folder; its `user` and `item` are a few examples."""

    origin: Source | None = None
    folder: EncodedFolder | None = None
    index_N: npt.NDArray[np.int64] | None = None
    """Selects rows of the folder, in this order; None selects all."""

    def take(self, index: npt.NDArray[np.int64]) -> Dataset:
        return replace(
            self,
            labels_N=self.labels_N[index],
            timestamps_N=None if self.timestamps_N is None else self.timestamps_N[index],
            weights=self.weights and self.weights.take(index),
            index_N=index if self.index_N is None else self.index_N[index],
        )

    def examples(self) -> Dataset:
        rows = len(self.user) or len(self.item)
        return Dataset(
            self.name, self.schema, self.user, self.item, np.zeros(rows, np.float32), None, self.source, self.skipped
        )

    def mapped_slots(self, side: Side) -> Slots | None:
        """Return the slots of all rows where they lie together in the folder; None where they have to be gathered."""
        all_slots, index = self._folder.slots(side), self.index_N
        if index is None:
            return all_slots
        if len(index) and index[-1] - index[0] + 1 == len(index) and (np.diff(index) == 1).all():
            rows = slice(int(index[0]), int(index[-1]) + 1)
            return Slots(all_slots.keys[rows], all_slots.values[rows])
        return None

    def slot_width(self, side: Side) -> int:
        """Return the number of slots of a row."""
        return int(self._folder.slots(side).keys.shape[1])

    def gather_slots(self, side: Side, rows: slice, target: Slots) -> None:
        """Copy the slots of some rows to their positions in `target`, which has room for all rows."""
        assert self.index_N is not None
        all_slots, chunk_rows = self._folder.slots(side), self.limits.chunk_rows
        for start in range(rows.start, rows.stop, chunk_rows):
            chunk = slice(start, min(start + chunk_rows, rows.stop))
            index = self.index_N[chunk]
            target.keys[chunk], target.values[chunk] = all_slots.keys[index], all_slots.values[index]

    @property
    def limits(self) -> EncodingLimits:
        return self._origin.limits

    @property
    def unreadable(self) -> dict[str, SkippedRows]:
        """Return the rows of the file whose value fits no slot, by field name."""
        return self._folder.unreadable

    @property
    def scratch_folder(self) -> Path:
        """Return the folder where unlinked files may be made."""
        return self._folder.folder.parent

    def states(self, side: Side) -> pl.DataFrame | None:
        """Return the last state as the format knows it, or the newest row of every user or item.

        The file is read again; memory is that of the users or items.
        """
        if self._origin.states:
            return self._origin.states(side)
        id_field = self.schema.layout(side).id_field
        if id_field is None:
            return None
        context = {f.raw_name for f in self.schema.fields if not f.is_stored}
        newest: pl.DataFrame | None = None
        for chunk in self._origin.usable_rows(BadRows(self.source, 1.0)):
            times_N = np.zeros(len(chunk.rows_N), np.int64) if chunk.times_N is None else chunk.times_N
            frame = chunk.side(side).drop(context, strict=False).with_columns(pl.Series(TIME_COLUMN, times_N))
            frame = frame.drop_nulls(id_field.raw_name)
            frame = frame if newest is None else stack_frames([newest, frame])
            newest = frame.sort(TIME_COLUMN, maintain_order=True)
            newest = newest.unique(id_field.raw_name, keep="last", maintain_order=True)
        return None if newest is None else newest.drop(TIME_COLUMN).rename({id_field.raw_name: ID_COLUMN})

    @property
    def _folder(self) -> EncodedFolder:
        assert self.folder is not None
        return self.folder

    @property
    def _origin(self) -> Source:
        assert self.origin is not None
        return self.origin
