"""Merge encoded shards: their counts, their arrays, one after the other, and their examples."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from io import BufferedRandom
from pathlib import Path

from app.features.fields import SIDES
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.mixed_columns import stack_frames
from app.training.data.shard_encoding import ARRAY_NAMES, MAX_EXAMPLE_CHUNKS, EncodedShard
from app.training.data.source import Source
from app.training.data.table_encoder import TableEncoder

READ_RANGES = 8
"""This many ranges are held in memory while they are copied."""


def merge_shards(source: Source, shards: Sequence[EncodedShard], max_bad: float) -> EncodedShard:
    """Merge what was read of consecutive shards.

    Raises:
        DataError: a column is missing, or there are no rows, or too many bad rows or unfit values.
    """
    bad = BadRows.of_shards([shard.bad for shard in shards])
    columns = set[str]().union(*(shard.columns for shard in shards))
    source.check_whole(bad, columns)
    encoder = TableEncoder(source.schema, str(source.path), max_bad)
    encoder.merge([(shard.bad.rows, shard.unfit) for shard in shards])
    encoder.check(bad.rows)
    examples = [example for shard in shards for example in shard.examples]
    while len(examples) > MAX_EXAMPLE_CHUNKS:
        examples = examples[::2]
    return EncodedShard(
        bad,
        rows=sum(shard.rows for shard in shards),
        slots={side: max(shard.slots[side] for shard in shards) for side in SIDES},
        columns=columns,
        unfit=encoder.unfit,
        unreadable=encoder.unreadable,
        examples=examples,
    )


def copy_arrays(
    shard_folders: Sequence[Path], folder: Path, own_slice: Callable[[int], slice], range_bytes: int
) -> None:
    """Copy some ranges of every array out of the shards' folders to their place among all rows.

    Args:
        own_slice: returns, for the number of ranges, which of them this process copies.
        range_bytes: the size of a range.

    Raises:
        OSError: a file cannot be read or written.
    """
    for name in ARRAY_NAMES:
        pieces = [shard_folder / f"{name}.bin" for shard_folder in shard_folders]
        sizes = [piece.stat().st_size for piece in pieces]
        ranges = own_slice(-(-sum(sizes) // range_bytes))
        array = folder / f"{name}.bin"
        array.touch()
        with array.open("r+b") as target:
            begin = 0
            for piece, size in zip(pieces, sizes, strict=True):
                start, stop = max(begin, ranges.start * range_bytes), min(begin + size, ranges.stop * range_bytes)
                if start < stop:
                    _copy(piece, start - begin, target, start, stop - start, READ_RANGES * range_bytes)
                begin += size
            target.flush()
            os.fsync(target.fileno())


def write_examples(shard: EncodedShard, folder: Path) -> None:
    """Write the examples of each side as `<side>.parquet`."""
    for index, side in enumerate(SIDES):
        stack_frames([example[index] for example in shard.examples]).write_parquet(folder / f"{side}.parquet")


def _copy(piece: Path, offset: int, target: BufferedRandom, position: int, count: int, buffer_bytes: int) -> None:
    with piece.open("rb") as source:
        source.seek(offset)
        target.seek(position)
        while count and (data := source.read(min(count, buffer_bytes))):
            target.write(data)
            count -= len(data)
