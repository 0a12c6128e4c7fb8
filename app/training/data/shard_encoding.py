"""Encode one shard of a source into arrays in a folder, without knowing of other processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from app.features.fields import SIDES
from app.training.data.readers.bad_rows import BadRows, SkippedRows, no_rows
from app.training.data.source import Source
from app.training.data.table_encoder import TableEncoder

ARRAY_NAMES = ("labels", "times", "weights", *(f"{side}_{part}" for side in SIDES for part in ("keys", "values")))
EXAMPLE_ROWS, MAX_EXAMPLE_CHUNKS = 64, 32

ReportProgress = Callable[[int, float], None]
"""Receives the number of rows encoded so far and the share of the file that has been read."""


@dataclass
class EncodedShard:
    """Records what was read and written of one shard, or of all shards together."""

    bad: BadRows
    rows: int = 0
    slots: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    """Counts the slots of a row, by side."""
    columns: set[str] = field(default_factory=set)
    """Names the columns that were met."""
    unfit: dict[str, BadRows] = field(default_factory=dict)
    """Records the rows whose value fits no slot, by field name."""
    unreadable: dict[str, SkippedRows] = field(default_factory=dict)
    """Records the same as reports show it; only where all shards are together."""
    examples: list[tuple[pl.DataFrame, pl.DataFrame]] = field(default_factory=list)
    """Holds some rows of both sides as they were read."""


def encode_shard(
    source: Source,
    folder: Path,
    max_bad: float,
    *,
    report: ReportProgress | None = None,
    rows_before: Callable[[], int] = no_rows,
    should_stop: Callable[[], bool] = lambda: False,
    durable: bool = True,
) -> EncodedShard:
    """Read and encode the rows of a source, or of a shard of it, and write `<name>.bin` for each of `ARRAY_NAMES`.

    Args:
        folder: an existing folder.
        max_bad: share of bad rows, and in each field of unfit values, above which the file is refused.
        rows_before: counts the rows of earlier shards; called for error messages only.
        should_stop: asked after each chunk; True ends the shard early.
        durable: whether the files are flushed to disk.

    Raises:
        DataError: the file cannot be read, or too much of it is bad.
        OSError: the folder cannot be written.
    """
    bad = BadRows(str(source.path), max_bad, rows_before=rows_before)
    encoder = TableEncoder(source.schema, str(source.path), max_bad, rows_before)
    shard, examples = EncodedShard(bad), _Examples()
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in ARRAY_NAMES}
        for chunk in source.usable_rows_of_shard(bad, shard.columns):
            for side in SIDES:
                slots = encoder.slots(side, chunk.side(side), chunk.rows_N)
                shard.slots[side] = slots.keys.shape[1]
                # Written, not mapped: a page that is written through a mapping counts as this process's memory.
                files[f"{side}_keys"].write(slots.keys.data)
                files[f"{side}_values"].write(slots.values.data)
            files["labels"].write(chunk.labels_N.data)
            if chunk.times_N is not None:
                files["times"].write(chunk.times_N.data)
            if chunk.weights_NC is not None:
                files["weights"].write(chunk.weights_NC.data)
            shard.rows += len(chunk.labels_N)
            encoder.check(bad.rows, chunk.fraction)
            examples.add(chunk.user, chunk.item)
            if report:
                report(shard.rows, chunk.fraction)
            del chunk, slots  # or this chunk stays while the next one is read
            if should_stop():
                break
        if durable:
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
    shard.bad = replace(bad, rows_before=no_rows)  # which other processes can unpickle
    shard.unfit, shard.examples = encoder.unfit, examples.chunks
    return shard


class _Examples:
    """Keeps some rows of some chunks, spread over the file however long it turns out to be."""

    def __init__(self) -> None:
        self.chunks: list[tuple[pl.DataFrame, pl.DataFrame]] = []
        self._seen, self._every = 0, 1

    def add(self, user: pl.DataFrame, item: pl.DataFrame) -> None:
        if self._seen % self._every == 0 and len(user):
            chosen = np.unique(np.linspace(0, len(user) - 1, EXAMPLE_ROWS).astype(np.int64))
            self.chunks.append((user[chosen], item[chosen]))
        self._seen += 1
        if len(self.chunks) > MAX_EXAMPLE_CHUNKS:
            self.chunks, self._every = self.chunks[::2], self._every * 2
