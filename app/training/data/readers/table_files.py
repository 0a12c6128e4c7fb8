"""Read the rows of one file or several, one after the other, or a consecutive part of these rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import polars as pl

from app.features.tables.cell_quoting import Quoting
from app.features.tables.line_blocks import WHOLE_FILE, FileRange
from app.features.tables.parquet_scan import PARQUET_ERRORS, scan_parquet
from app.features.tables.table_paths import KeyValue
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.table_chunk import TableChunk
from app.training.data.readers.text_file import unreadable_file

FileReader = Callable[[Path, FileRange, BadRows], Iterator[TableChunk]]
FilePart = tuple[Path, FileRange]


class SplitBoundary(Enum):
    """Says where a file may be split between two shards."""

    LINES = "after any line, or, where cells are quoted, one that ends outside of quotes"
    PARQUET_ROWS = "after any row of Parquet"


@dataclass(frozen=True)
class TableFiles:
    """Joins files of one kind and their reader; a call yields the chunks of the rows that it stands for."""

    files: tuple[Path, ...]
    read: FileReader
    boundary: SplitBoundary
    quoting_of: Callable[[Path], Quoting] | None = None
    """Says how the cells of a file are quoted; None where quotes mean nothing."""
    separator_of: Callable[[Path], str] | None = None
    """Says what divides the columns of a file; None where they are not divided by a letter."""
    notes: Callable[[], tuple[str, ...]] = tuple
    """Says what a user should know of how the files are read."""
    keys: Mapping[Path, Mapping[str, KeyValue]] = field(default_factory=dict)
    """Maps a file to columns that the names of its folders add."""
    parts: tuple[FilePart, ...] | None = None
    """Lists what is read, in order; None is all of every file."""
    parts_before: tuple[FilePart, ...] = ()
    """Lists what the shards before this one read."""

    def __call__(self, bad: BadRows) -> Iterator[TableChunk]:
        """Yield chunks, whose fraction is that of all files. Raises DataError if a file cannot be read."""
        if self.parts is None and len(self.files) == 1:
            yield from self._chunks(self.files[0], WHOLE_FILE, bad)
            return
        sizes = dict(zip(self.files, self.sizes(), strict=True))
        total, done = sum(sizes.values()), 0
        root = os.path.commonpath([file.parent for file in self.files])
        names = {file: os.path.relpath(file, root) for file in self.files}
        for file, part in ((file, WHOLE_FILE) for file in self.files) if self.parts is None else self.parts:
            if len(names) > 1:
                bad.begin_file(names[file])
            size = (sizes[file] if part.stop is None else part.stop) - part.start
            for chunk in self._chunks(file, part, bad):
                yield chunk._replace(fraction=(done + chunk.fraction * size) / total)
                del chunk  # or its rows stay while the next ones are read
            done += size

    def _chunks(self, file: Path, part: FileRange, bad: BadRows) -> Iterator[TableChunk]:
        """Yield the chunks of a part of a file with the columns that the names of its folders add."""
        for chunk in self.read(file, part, bad):
            added = {name: value for name, value in self.keys.get(file, {}).items() if name not in chunk.frame.columns}
            if added and (chunk.frame.columns or not chunk.open_ended):
                chunk = chunk._replace(
                    frame=chunk.frame.with_columns(
                        pl.lit(value, pl.Int64 if isinstance(value, int) else pl.String).alias(name)
                        for name, value in added.items()
                    )
                )
            yield chunk._replace(file=file)
            del chunk

    def sizes(self) -> list[int]:
        """Return the size of every file, in bytes, or in rows for Parquet. Raises DataError if one is unreadable."""
        return [self._size(file) for file in self.files]

    def count_rows_before(self) -> int:
        """Count the rows of the shards before this one, good or bad. It takes as long as reading them."""
        return replace(self, parts=self.parts_before, parts_before=()).count_rows() if self.parts_before else 0

    def count_rows(self) -> int:
        """Count the rows, good or bad. It takes as long as reading them."""
        bad = BadRows("", 1.0)
        for _ in self(bad):
            pass
        return bad.rows

    def _size(self, file: Path) -> int:
        try:
            if self.boundary is SplitBoundary.PARQUET_ROWS:
                return int(scan_parquet(file).select(pl.len()).collect().item())
            return file.stat().st_size
        except PARQUET_ERRORS as error:
            raise unreadable_file(file, error) from error
