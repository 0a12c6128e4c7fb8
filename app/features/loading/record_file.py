"""`RecordFile`: the rows of a file, one at a time: CSV, TSV and JSON lines, plain or gzipped, and Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from app.errors import ConfigError, DataError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
PARQUET_ROWS = 20_000
"""Rows of a Parquet file that are held at a time."""
MAX_REASON = 200


class Record(NamedTuple):
    """One row."""

    row: int
    """The line in a text file, counting from 1 with the header; the row in a Parquet file, counting from 1."""
    values: Mapping[str, Any]
    problem: str
    """Why the row cannot be read; empty if it can."""


class RecordFile:
    """A file that can be iterated over as often as needed; it holds a few rows at a time."""

    def __init__(self, path: Path, *, parquet_rows: int = PARQUET_ROWS) -> None:
        """Tell the kind of file by its name. Raises ConfigError if it is not known, DataError if there is no file."""
        self.path = path
        self._parquet_rows = parquet_rows
        self._gzipped = path.suffix == ".gz"
        self._kind = Path(path.stem).suffix if self._gzipped else path.suffix
        kinds = [*SEPARATORS, *JSON_LINES, *([] if self._gzipped else PARQUET)]
        if self._kind not in kinds:
            raise ConfigError(f"{path}: the name should end in {', '.join(kinds)}, or .gz after a text format")
        if not path.is_file():
            raise DataError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
        self.unit = "row" if self._kind in PARQUET else "line"
        self.fraction = 0.0
        """The share of the file that the current iteration has read, 0 to 1."""

    def __iter__(self) -> Iterator[Record]:
        """Read the rows from the beginning. Raises DataError if the file, not just a row of it, cannot be read."""
        self.fraction = 0.0
        if self._kind in PARQUET:
            yield from self._parquet()
            return
        try:
            with self._text() as file:
                yield from self._json_lines(file) if self._kind in JSON_LINES else self._delimited(file)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.path}: cannot be read: {str(error)[:MAX_REASON]}") from error

    @contextmanager
    def _text(self) -> Iterator[BinaryIO]:
        with self.path.open("rb") as raw:
            self._raw, self._size = raw, max(self.path.stat().st_size, 1)
            if self._gzipped:
                with gzip.open(raw) as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield raw

    def _update_fraction(self) -> None:
        self.fraction = self._raw.tell() / self._size

    def _json_lines(self, file: BinaryIO) -> Iterator[Record]:
        decoder = msgspec.json.Decoder()
        for number, line in enumerate(file, 1):
            self._update_fraction()
            if number == 1 and line.lstrip().startswith(b"["):
                raise DataError(f"{self.path}: is one JSON array; one object on each line is needed")
            if not line.strip():
                continue
            try:
                values = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                yield Record(number, {}, f"is not JSON: {str(error)[:MAX_REASON]}")
                continue
            yield Record(number, values, "") if isinstance(values, dict) else Record(number, {}, "is not a JSON object")

    def _delimited(self, file: BinaryIO) -> Iterator[Record]:
        with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, delimiter=SEPARATORS[self._kind], strict=True)
            header = next(reader, [])
            twice = {name for name in header if header.count(name) > 1}
            if twice:
                raise DataError(f"{self.path}: the header names {sorted(twice)[0]!r} twice")
            for cells in reader:
                self._update_fraction()
                if len(cells) == len(header):
                    yield Record(reader.line_num, dict(zip(header, cells, strict=True)), "")
                elif cells:
                    yield Record(reader.line_num, {}, f"has {len(cells)} cells, the header {len(header)}")

    def _parquet(self) -> Iterator[Record]:
        try:
            import polars as pl
        except ImportError as error:
            raise ConfigError(
                f"{self.path}: reading Parquet needs `pip install ctr-serving[training]`; or convert it to JSON lines"
            ) from error
        try:
            frame = pl.scan_parquet(self.path)
            total = frame.select(pl.len()).collect().item()
            for start in range(0, total, self._parquet_rows):
                chunk = frame.slice(start, self._parquet_rows).collect()
                for row, values in enumerate(chunk.iter_rows(named=True), start + 1):
                    self.fraction = row / total
                    yield Record(row, values, "")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{self.path}: cannot be read: {str(error).strip()[:MAX_REASON]}") from error
