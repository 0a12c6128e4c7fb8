"""Load a source: into memory where its files are small, by its encoded folder where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from app.errors import DataError
from app.features.tables.table_kind import GZIP, PARQUET
from app.training.data.dataset import Dataset
from app.training.data.encoded_cache import encode_file
from app.training.data.mapped_dataset import MappedDataset
from app.training.data.readers.bad_rows import MAX_BAD_SHARE, BadRows
from app.training.data.readers.mixed_columns import stack_frames
from app.training.data.shard_encoding import ReportProgress
from app.training.data.source import Source
from app.training.distributed import SINGLE_PROCESS, ProcessGroup

COMPRESSION, COMPRESSED_KINDS = 6, (GZIP, *PARQUET)
"""Text is about this many times larger than its gzip."""
CACHE = Path("runs/encoded")


def load_dataset(
    source: Source,
    *,
    cache: Path = CACHE,
    max_bad: float = MAX_BAD_SHARE,
    report: ReportProgress | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Dataset:
    """Load a source.

    Args:
        cache: the folder of encoded folders.
        max_bad: share of bad rows above which the file is refused.
        group: the processes that load it. Those of a machine encode a shard each of a large one, for their machine;
            a small one is read by all.

    Raises:
        ConfigError: the cache has no room, or cannot be written.
        DataError: the file cannot be read, has too many bad rows, or one label throughout; or the machines have
            different files under this name.
    """
    size = sum(map(_text_size, source.files))
    _check_same(source, size, group)
    if size <= source.limits.in_memory_bytes:
        data = group.run_all_or_raise(lambda: read_into_memory(source, max_bad))
        if source.states is None:
            return data
        return replace(data, user_states=source.states("user"), item_states=source.states("item"))
    folder = encode_file(source, cache, max_bad=max_bad, report=report, group=group.on_this_machine())
    labels_N = np.array(folder.labels_N)
    weights_NC = None if folder.weights_NC is None else np.array(folder.weights_NC)
    digests = [xxhash.xxh3_64_hexdigest(array.data) for array in (labels_N, weights_NC) if array is not None]
    _check_same(source, (folder.meta.seen, digests), group)
    if not len(labels_N):
        raise DataError(f"{source.path}: has no usable rows")
    _check_labels(source, labels_N)
    return MappedDataset(
        name=source.name,
        schema=source.schema,
        user=folder.examples("user"),
        item=folder.examples("item"),
        labels_N=labels_N,
        timestamps_N=None if folder.times_N is None else np.array(folder.times_N),
        source=source.title or str(source.path),
        skipped=folder.skipped,
        max_bad=max_bad,
        notes=source.notes,
        weights=source.weighting.weights_of(labels_N, weights_NC),
        origin=source,
        folder=folder,
    )


def read_into_memory(source: Source, max_bad: float = MAX_BAD_SHARE) -> Dataset:
    """Read all rows.

    Raises:
        DataError: no rows, a column is missing, more than `max_bad` of the rows are bad, or all labels are equal.
    """
    bad = BadRows(str(source.path), max_bad)
    chunks = list(source.usable_rows(bad))
    if not any(len(chunk.labels_N) for chunk in chunks):
        raise DataError(f"{source.path}: has no usable rows{f': {bad.skipped}' if bad.count else ''}")
    labels_N = np.concatenate([chunk.labels_N for chunk in chunks])
    _check_labels(source, labels_N)
    times = [chunk.times_N for chunk in chunks if chunk.times_N is not None]
    weights = [chunk.weights_NC for chunk in chunks if chunk.weights_NC is not None]
    return Dataset(
        name=source.name,
        schema=source.schema,
        user=stack_frames([chunk.user for chunk in chunks]),
        item=stack_frames([chunk.item for chunk in chunks]),
        labels_N=labels_N,
        timestamps_N=np.concatenate(times) if times else None,
        source=source.title or str(source.path),
        skipped=bad.skipped,
        max_bad=max_bad,
        notes=source.notes,
        weights=source.weighting.weights_of(labels_N, np.concatenate(weights) if weights else None),
    )


def _text_size(file: Path) -> int:
    """Return about how many bytes of text a file holds once it is unpacked."""
    return file.stat().st_size * (COMPRESSION if file.suffix.lower() in COMPRESSED_KINDS else 1)


def _check_labels(source: Source, labels_N: npt.NDArray[np.float32]) -> None:
    if labels_N.min(initial=1.0) == labels_N.max(initial=0.0):
        which = (
            f", as none is {source.labels.positive} (--positive)" if source.labels.positive and not labels_N[0] else ""
        )
        raise DataError(
            f"{source.path}: every {source.label} is {labels_N[0]:.0f}{which}; there is nothing to learn from"
        )


def _check_same(source: Source, value: object, group: ProcessGroup) -> None:
    if any(other != value for other in group.all_gather(value)):
        raise DataError(f"{source.path}: is not the same on all machines; copy it anew, or share the folder it is in")
