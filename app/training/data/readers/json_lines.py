"""Read JSON lines, plain or gzipped, in chunks: one object on each line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from app.features.tables.json_rows import JsonRowError, check_json, json_row
from app.features.tables.line_blocks import HEAD_BYTES, FileRange, TextBlock, read_blocks
from app.training.data.encoding_limits import EncodingLimits
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.mixed_columns import json_series
from app.training.data.readers.table_chunk import TableChunk
from app.training.data.readers.table_files import SplitBoundary, TableFiles


def json_lines_files(files: tuple[Path, ...], limits: EncodingLimits) -> TableFiles:
    """Return a reader of JSON lines files."""

    def read(path: Path, part: FileRange, bad: BadRows) -> Iterator[TableChunk]:
        rows_before = bad.rows
        for block in read_blocks(path, part, size=limits.block_bytes):
            if part.start == 0 and bad.rows == rows_before:
                check_json(path, block.text[:HEAD_BYTES])
            yield _chunk(block, bad)

    return TableFiles(files, read, SplitBoundary.LINES)


def _chunk(block: TextBlock, bad: BadRows) -> TableChunk:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    undecodable: dict[str, list[int]] = {}
    for line in block.text.split(b"\n"):
        if not line or line.isspace():
            continue
        bad.rows += 1
        try:
            rows.append(json_row(line))
            numbers.append(bad.rows)
        except JsonRowError as error:
            undecodable.setdefault(error.reason, []).append(bad.rows)
    for reason, bad_rows in undecodable.items():
        bad.add(reason, bad_rows)
    names = dict.fromkeys(name for row in rows for name in row)
    frame = pl.DataFrame({name: json_series(name, [row.get(name) for row in rows]) for name in names})
    return TableChunk(frame, np.array(numbers, np.int64), block.fraction, open_ended=True)
