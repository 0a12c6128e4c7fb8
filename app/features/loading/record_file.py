"""`RecordFile`: the rows of a table, one at a time: CSV, TSV and JSON lines, plain or gzipped, and Parquet.

What a file is and how its cells are divided is found out by `features/tables`, as training finds it out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from app.errors import ConfigError, DataError
from app.features.tables.block_lines import IF_LATIN_1, line_ends
from app.features.tables.cell_quoting import ESCAPES, SPOILED
from app.features.tables.delimited_layout import DelimitedLayout, delimited_layout
from app.features.tables.json_rows import JsonRowError, check_json, json_row
from app.features.tables.line_blocks import FileRange, read_blocks, read_head
from app.features.tables.table_paths import table_paths

PARQUET_ROWS = 20_000
"""Rows of a Parquet file that are held at a time."""
TEXT_BYTES = 1 << 20
"""Bytes of a text file that are held at a time."""
MAX_REASON = 200


class Record(NamedTuple):
    """One row."""

    row: int
    """Numbers the rows of all files from 1; blank lines are none."""
    values: Mapping[str, Any]
    problem: str
    """Why the row cannot be read; empty if it can."""
    place: str = ""
    """Says where the row is: its line in a text file, counting from 1 with the header, its row in a Parquet file."""


class RecordFile:
    """A table that can be iterated over as often as needed; it holds a few rows at a time."""

    def __init__(self, path: Path, *, escape: str | None = None, parquet_rows: int = PARQUET_ROWS) -> None:
        """Find the file, or the files of a folder or pattern.

        Args:
            escape: what `--escape` says of backslashes.

        Raises:
            ConfigError: the kind of file is not known.
            DataError: there is no file, or it is empty.
        """
        if escape is not None and escape not in ESCAPES:
            raise ConfigError(f"--escape {escape}: choose one of {' '.join(ESCAPES)}")
        self.path = path
        self._escape = escape
        self._parquet_rows = parquet_rows
        self._paths, self._kind = table_paths(path)
        self.notes: list[str] = list(self._paths.notes)
        """What a user should know of how the files are read; complete once they have been."""
        self._columns: tuple[Path, frozenset[str]] | None = None
        self.fraction = 0.0
        """The share of the files that the current iteration has read, 0 to 1."""

    def __iter__(self) -> Iterator[Record]:
        """Read the rows from the beginning. Raises DataError if a file, not just a row of it, cannot be read."""
        readers = {"parquet": self._parquet, "json": self._json_lines, "delimited": self._delimited}
        files = self._paths.files
        self._columns = None
        number = 0
        for index, file in enumerate(files):
            keys = self._paths.keys.get(file, {})
            within = f"{file.relative_to(self.path) if self.path in file.parents else file}, " if len(files) > 1 else ""
            self.fraction = 0.0
            for place, values, problem in readers[self._kind.format](file):
                number += 1
                fraction, self.fraction = self.fraction, (index + self.fraction) / len(files)
                yield Record(
                    number, {**keys, **values} if keys and not problem else values, problem, f"{within}{place}"
                )
                self.fraction = fraction

    def _check_columns(self, path: Path, names: Iterable[str]) -> None:
        """Raise DataError if a file lacks a column of the first one, which would be erased, or the first one of its."""
        first, columns = self._columns = self._columns or (path, frozenset(names))
        differ = sorted(columns.symmetric_difference(names))
        if differ:
            lacks, other = (path, first) if differ[0] in columns else (first, path)
            raise DataError(f"{lacks}: has no column {differ[0]}, which {other.name} has; load them one by one")

    def _json_lines(self, path: Path) -> Iterator[tuple[str, Mapping[str, Any], str]]:
        check_json(path, read_head(path)[0])
        number = 0
        for text, fraction in read_blocks(path, size=TEXT_BYTES):
            self.fraction = fraction
            for line in text.split(b"\n")[:-1]:
                number += 1
                if not line.strip():
                    continue
                try:
                    yield f"line {number}", json_row(line), ""
                except JsonRowError as error:
                    yield f"line {number}", {}, str(error)

    def _delimited(self, path: Path) -> Iterator[tuple[str, Mapping[str, Any], str]]:
        layout = delimited_layout(path, self._escape)
        self._check_columns(path, layout.names)
        if layout.note and layout.note not in self.notes:
            self.notes.append(layout.note)
        number = 1 + read_head(path, layout.body)[0].count(b"\n")
        for text, fraction in read_blocks(path, FileRange(layout.body), quoting=layout.quoting, size=TEXT_BYTES):
            self.fraction = fraction
            for start, stop in pairwise([0, *(line_ends(text, quoted=True) + 1).tolist()]):
                row = text[start:stop]
                if row not in (b"\n", b"\r\n"):
                    yield (f"line {number}", *_cells(row, layout))
                number += row.count(b"\n")

    def _parquet(self, path: Path) -> Iterator[tuple[str, Mapping[str, Any], str]]:
        try:
            import polars as pl

            from app.features.tables.parquet_scan import PARQUET_ERRORS, scan_parquet
            from app.features.tables.plain_series import readable_frame
        except ImportError as error:
            raise ConfigError(
                f"{path}: reading Parquet needs `pip install ctr-serving[training]`; or convert it to JSON lines"
            ) from error
        try:
            frame = scan_parquet(path)
            self._check_columns(path, frame.collect_schema().names())
            total = frame.select(pl.len()).collect().item()
            for start in range(0, total, self._parquet_rows):
                chunk = readable_frame(frame.slice(start, self._parquet_rows).collect())
                for row, values in enumerate(chunk.iter_rows(named=True), start + 1):
                    self.fraction = row / total
                    yield f"row {row}", values, ""
        except PARQUET_ERRORS as error:
            raise DataError(f"{path}: cannot be read: {str(error).strip()[:MAX_REASON]}") from error


def _cells(row: bytes, layout: DelimitedLayout) -> tuple[Mapping[str, Any], str]:
    """Return the cells of a row of regular quotes by name, and what is wrong with it."""
    if row == SPOILED + b"\n":
        return {}, "opens a double quote and does not close it"
    if b"\0" in row:
        return {}, "holds a NUL byte"
    line = row.removesuffix(b"\n").removesuffix(b"\r")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return {}, f"is not UTF-8: {IF_LATIN_1}"
    if '"' not in text:
        if "\r" in text:
            return {}, "holds a carriage return in the midst"
        cells = text.split(layout.separator)
    else:
        try:
            cells = next(csv.reader([text], delimiter=layout.separator, strict=True))
        except csv.Error as error:
            return {}, f"cannot be read: {error}"
    if len(cells) != len(layout.names):
        return {}, f"has {len(cells)} cells, the header {len(layout.names)}"
    if layout.quoting.padded:
        cells = [cell.strip(" ") for cell in cells]
    elif layout.quoting.spaced:
        cells = [cell.lstrip(" ") for cell in cells]
    return dict(zip(layout.names, cells, strict=True)), ""
