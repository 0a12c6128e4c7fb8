"""A dataset that is larger than memory: labels and times are held, slots are mapped from the encoded folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from app.errors import DataError
from app.features.fields import Side
from app.features.loading.records import PARQUET
from app.features.slots import Slots
from app.training.data.dataset import ID_COLUMN, Dataset, check_labels, from_source
from app.training.data.encode_shards import Report
from app.training.data.encoded_cache import EncodedFolder, encode_file
from app.training.data.readers.bad_rows import MAX_BAD_SHARE, BadRows
from app.training.data.readers.table_chunks import stacked
from app.training.data.source import Part, Source
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.scratch_array import shared_room

IN_MEMORY_BYTES = 64 << 20
"""A file up to this size is read whole; as frames it takes several times as much memory."""
PACKED, PACKED_KINDS = 6, (".gz", *PARQUET)
"""How much larger text is than its gzip, about."""
CACHE = Path("runs/encoded")
GATHER_ROWS = 65_536


@dataclass(frozen=True)
class MappedDataset(Dataset):
    """`user` and `item` are examples; the slots of all rows are mapped."""

    origin: Source | None = None
    folder: EncodedFolder | None = None
    index_N: npt.NDArray[np.int64] | None = None
    """Which rows of the folder these are, in this order; None for all."""

    def take(self, index: npt.NDArray[np.int64]) -> Dataset:
        return replace(
            self,
            labels_N=self.labels_N[index],
            timestamps_N=None if self.timestamps_N is None else self.timestamps_N[index],
            index_N=index if self.index_N is None else self.index_N[index],
        )

    def examples(self) -> Dataset:
        rows = len(self.user) or len(self.item)
        return Dataset(
            self.name, self.schema, self.user, self.item, np.zeros(rows, np.float32), None, self.source, self.skipped
        )

    def slots(self, side: Side, machine_group: ProcessGroup = SINGLE_PROCESS) -> Slots:
        """All rows' slots: mapped where the rows lie together, gathered into an unlinked file where they do not.

        Args:
            machine_group: the processes that gather them together.
        """
        assert self.folder is not None
        whole, index = self.folder.slots(side), self.index_N
        if index is None:
            return whole
        if len(index) and index[-1] - index[0] + 1 == len(index) and (np.diff(index) == 1).all():
            place = slice(int(index[0]), int(index[-1]) + 1)
            return Slots(whole.keys[place], whole.values[place])
        width = whole.keys.shape[1]
        shape, scratch = (len(index), width), self.scratch
        found = Slots(*(shared_room(shape, dtype, scratch, machine_group) for dtype in (np.int64, np.float32)))
        own = machine_group.own_slice(len(index))
        for start in range(own.start, own.stop, GATHER_ROWS):
            place = slice(start, min(start + GATHER_ROWS, own.stop))
            found.keys[place], found.values[place] = whole.keys[index[place]], whole.values[index[place]]
        machine_group.barrier()
        return found

    @property
    def scratch(self) -> Path:
        """Where files without a name may be made."""
        assert self.folder is not None
        return self.folder.folder.parent

    def states(self, side: Side) -> pl.DataFrame | None:
        """As the format knows it, or the newest row of every user or item: memory is that of the entities."""
        assert self.origin is not None
        if self.origin.states:
            return self.origin.states(side)
        id_field = self.schema.layout(side).id_field
        if id_field is None:
            return None
        context = {f.raw_name for f in self.schema.fields if f.entity == "context"}
        newest: pl.DataFrame | None = None
        for part in self._parts():
            frame = (
                part.side(side)
                .drop(context, strict=False)
                .with_columns(
                    pl.Series(AGE, np.zeros(len(part.rows_N), np.int64) if part.times_N is None else part.times_N)
                )
            )
            frame = frame.drop_nulls(id_field.raw_name)
            frame = frame if newest is None else stacked([newest, frame])
            newest = frame.sort(AGE, maintain_order=True).unique(id_field.raw_name, keep="last", maintain_order=True)
        return None if newest is None else newest.drop(AGE).rename({id_field.raw_name: ID_COLUMN})

    def _parts(self) -> Iterator[Part]:
        assert self.origin is not None
        return self.origin.parts(BadRows(self.source, 1.0))


AGE = "\x1ftime"
"""No raw field has such a name."""


def load(
    source: Source,
    *,
    cache: Path = CACHE,
    max_bad: float = MAX_BAD_SHARE,
    report: Report | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Dataset:
    """A file in memory where it is small, by its encoded folder where it is not.

    Args:
        group: the processes that load it. Those of a machine encode a share each of a large one, for their machine;
            a small one is read by all.

    Raises:
        ConfigError: the cache has no room, or cannot be written.
        DataError: the file cannot be read, has too many bad rows, or one label throughout; or the machines have
            different files under this name.
    """
    size = sum(file.stat().st_size * (PACKED if file.suffix in PACKED_KINDS else 1) for file in source.files)
    _check_same(source, size, group)
    if size <= IN_MEMORY_BYTES:
        return group.run_all_or_raise(lambda: from_source(source, max_bad))
    folder = encode_file(source, cache, max_bad=max_bad, report=report, group=group.on_this_machine())
    labels_N = np.array(folder.labels_N)
    _check_same(source, (folder.meta.seen, xxhash.xxh3_64_hexdigest(labels_N.data)), group)
    if not len(labels_N):
        raise DataError(f"{source.path}: has no usable rows")
    check_labels(source, labels_N)
    return MappedDataset(
        name=source.name,
        schema=source.schema,
        user=folder.examples("user"),
        item=folder.examples("item"),
        labels_N=labels_N,
        timestamps_N=None if folder.times_N is None else np.array(folder.times_N),
        source=str(source.path),
        skipped=folder.skipped,
        max_bad=max_bad,
        origin=source,
        folder=folder,
    )


def _check_same(source: Source, known: object, group: ProcessGroup) -> None:
    if any(other != known for other in group.all_gather(known)):
        raise DataError(f"{source.path}: is not the same on all machines; copy it anew, or share the folder it is in")
