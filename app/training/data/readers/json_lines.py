"""Read JSON lines, plain or gzipped, in chunks: one object on each line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from app.errors import DataError
from app.training.data.encoding_limits import EncodingLimits
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.line_blocks import FileRange, TextBlock, read_blocks
from app.training.data.readers.mixed_columns import json_series
from app.training.data.readers.table_chunk import TableChunk
from app.training.data.readers.table_files import SplitBoundary, TableFiles


def json_lines_files(files: tuple[Path, ...], limits: EncodingLimits) -> TableFiles:
    """Return a reader of JSON lines files."""

    def read(path: Path, part: FileRange, bad: BadRows) -> Iterator[TableChunk]:
        rows_before = bad.rows
        for block in read_blocks(path, part, size=limits.block_bytes):
            if part.start == 0 and bad.rows == rows_before and block.text.lstrip().startswith(b"["):
                raise DataError(f"{path}: is one JSON array; one object on each line is needed")
            yield _chunk(block, bad)

    return TableFiles(files, read, SplitBoundary.LINES)


def _chunk(block: TextBlock, bad: BadRows) -> TableChunk:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    undecodable: list[int] = []
    for line in block.text.split(b"\n"):
        if not line.strip():
            continue
        bad.rows += 1
        try:
            rows.append(decode(line))
            numbers.append(bad.rows)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            undecodable.append(bad.rows)
    bad.add("are not JSON objects", undecodable)
    names = dict.fromkeys(name for row in rows for name in row)
    frame = pl.DataFrame({name: json_series(name, [row.get(name) for row in rows]) for name in names})
    return TableChunk(frame, np.array(numbers, np.int64), block.fraction, open_ended=True)
