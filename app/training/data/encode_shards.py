"""Rows of a source to the arrays of an encoded folder, by one process or by several that encode a share each.

Several write their shares aside, as nobody knows how many good rows come before its own until all have read theirs.
Then they copy them together, each a stretch of every array. The copies cost a second where encoding costs fifty; in
return the folder is to the byte that of one process, is read without regard to who wrote it, and any number of
processes finds it again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BufferedRandom
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from app.errors import ConfigError
from app.features.fields import SIDES
from app.training.data.readers.bad_rows import BadRows, Skipped, no_rows
from app.training.data.readers.table_chunks import stacked
from app.training.data.source import Source
from app.training.data.table_encoder import TableEncoder
from app.training.distributed import ProcessGroup

NAMES = ("labels", "times", *(f"{side}_{part}" for side in SIDES for part in ("keys", "values")))
EXAMPLE_ROWS, EXAMPLE_CHUNKS = 64, 32
STRETCH = 1 << 20
"""Stretches begin at multiples of it, so that no two processes write to one page."""
STOPPED = "stopped"

T = TypeVar("T")
Report = Callable[[int, float], None]
"""Told the rows encoded and the share of the file read."""


@dataclass
class Filled:
    """What one process, or all of them, read and wrote."""

    bad: BadRows
    rows: int = 0
    slots: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    columns: set[str] = field(default_factory=set)
    unfit: dict[str, BadRows] = field(default_factory=dict)
    unreadable: dict[str, Skipped] = field(default_factory=dict)
    examples: list[tuple[pl.DataFrame, pl.DataFrame]] = field(default_factory=list)


def kept(source: Source, cache: Path, act: Callable[[], T]) -> T:
    """What it returns. Raises ConfigError for an OSError."""
    try:
        return act()
    except OSError as error:
        raise ConfigError(
            f"{cache}: the encoded form of {source.path} cannot be kept there: {error.strerror}; "
            "make room, or name another folder with --cache"
        ) from error


def fill(source: Source, aside: Path, max_bad: float, report: Report | None, group: ProcessGroup) -> Filled:
    """Write the arrays and the examples to an existing folder.

    Raises:
        ConfigError: the folder has no room, or other processes do not see it.
        DataError: the file cannot be read, or too much of it is bad.
    """
    cache = aside.parent
    share, before = source.share(group) if group.size > 1 else (source, no_rows)
    folder = aside / str(group.rank) if group.size > 1 else aside
    own = group.run_all_or_raise(
        lambda: kept(source, cache, lambda: _share(share, before, folder, max_bad, report, group))
    )
    found = _joined(source, group.all_gather(own), max_bad)
    if report and group.size > 1:
        report(found.rows, 1.0)
    group.run_all_or_raise(lambda: kept(source, cache, lambda: _assemble(aside, group)))
    if group.is_first:
        _write_examples(found, aside)
    return found


def _share(
    source: Source, before: Callable[[], int], folder: Path, max_bad: float, report: Report | None, group: ProcessGroup
) -> Filled:
    bad = BadRows(str(source.path), max_bad, before=before)
    encoder = TableEncoder(source.schema, str(source.path), max_bad, before)
    found, examples, stopped = Filled(bad), _Examples(), folder.parent / STOPPED
    with contextlib.ExitStack() as stack:
        if group.size > 1:
            folder.mkdir()
            stack.push(lambda kind, *_: stopped.touch() if kind else None)
        files = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in NAMES}
        for part in source.some_parts(bad, found.columns):
            for side in SIDES:
                encoded = encoder.slots(side, part.side(side), part.rows_N)
                found.slots[side] = encoded.keys.shape[1]
                # Written, not mapped: a page that is written through a mapping counts as this process's memory.
                files[f"{side}_keys"].write(encoded.keys.data)
                files[f"{side}_values"].write(encoded.values.data)
            files["labels"].write(part.labels_N.data)
            if part.times_N is not None:
                files["times"].write(part.times_N.data)
            found.rows += len(part.labels_N)
            encoder.check(bad.rows, part.fraction)
            examples.add(part.user, part.item)
            if report:  # of several processes, as if the others were as far
                report(found.rows * group.size, part.fraction if group.size == 1 else _own(part.fraction, group))
            del part, encoded  # or this chunk stays while the next one is read
            if group.size > 1 and stopped.exists():  # another process has said why
                break
        if group.size == 1:
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
    found.bad = replace(bad, before=no_rows)
    found.unfit, found.examples = encoder.unfit, examples.kept
    return found


def _own(fraction: float, group: ProcessGroup) -> float:
    """How much of this share has been read, where that much of the whole has."""
    return min(1.0, fraction * group.size)


def _joined(source: Source, shares: list[Filled], max_bad: float) -> Filled:
    """The whole of shares that lie one after the other; every process computes the same. Raises DataError."""
    bad = BadRows.of_shares([share.bad for share in shares])
    columns = set[str]().union(*(share.columns for share in shares))
    source.conclude(bad, columns)
    encoder = TableEncoder(source.schema, str(source.path), max_bad)
    encoder.gather([(share.bad.rows, share.unfit) for share in shares])
    encoder.check(bad.rows)
    examples = [example for share in shares for example in share.examples]
    while len(examples) > EXAMPLE_CHUNKS:
        examples = examples[::2]
    return Filled(
        bad,
        rows=sum(share.rows for share in shares),
        slots={side: max(share.slots[side] for share in shares) for side in SIDES},
        columns=columns,
        unreadable=encoder.unreadable,
        examples=examples,
    )


def _assemble(aside: Path, group: ProcessGroup) -> None:
    """Copy this process's stretch of every array out of the shares. Raises OSError."""
    if group.size == 1:
        return
    for name in NAMES:
        pieces = [aside / str(rank) / f"{name}.bin" for rank in range(group.size)]
        sizes = [piece.stat().st_size for piece in pieces]
        own = group.own_slice(-(-sum(sizes) // STRETCH))
        whole = aside / f"{name}.bin"
        whole.touch()
        with whole.open("r+b") as to:
            begin = 0
            for piece, size in zip(pieces, sizes, strict=True):
                start, stop = max(begin, own.start * STRETCH), min(begin + size, own.stop * STRETCH)
                if start < stop:
                    _copy(piece, to, start - begin, start, stop - start)
                begin += size
            to.flush()
            os.fsync(to.fileno())


def _copy(piece: Path, to: BufferedRandom, at: int, start: int, count: int) -> None:
    with piece.open("rb") as source:
        source.seek(at)
        to.seek(start)
        while count and (data := source.read(min(count, 8 * STRETCH))):
            to.write(data)
            count -= len(data)


class _Examples:
    """Some rows of some chunks, spread over the file however long it turns out to be."""

    def __init__(self) -> None:
        self.kept: list[tuple[pl.DataFrame, pl.DataFrame]] = []
        self._seen, self._every = 0, 1

    def add(self, user: pl.DataFrame, item: pl.DataFrame) -> None:
        if self._seen % self._every == 0 and len(user):
            chosen = np.unique(np.linspace(0, len(user) - 1, EXAMPLE_ROWS).astype(np.int64))
            self.kept.append((user[chosen], item[chosen]))
        self._seen += 1
        if len(self.kept) > EXAMPLE_CHUNKS:
            self.kept, self._every = self.kept[::2], self._every * 2


def _write_examples(found: Filled, folder: Path) -> None:
    for place, side in enumerate(SIDES):
        stacked([kept[place] for kept in found.examples]).write_parquet(folder / f"{side}.parquet")
