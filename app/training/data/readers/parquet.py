"""Read Parquet in chunks; polars reads the row groups that hold the rows of a chunk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from app.features.tables.line_blocks import FileRange
from app.features.tables.parquet_scan import PARQUET_ERRORS, scan_parquet
from app.training.data.encoding_limits import EncodingLimits
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.table_chunk import TableChunk
from app.training.data.readers.table_files import SplitBoundary, TableFiles
from app.training.data.readers.text_file import unreadable_file


def parquet_files(files: tuple[Path, ...], limits: EncodingLimits) -> TableFiles:
    """Return a reader of Parquet files."""

    def read(path: Path, part: FileRange, bad: BadRows) -> Iterator[TableChunk]:
        try:
            table = scan_parquet(path)
            stop = table.select(pl.len()).collect().item() if part.stop is None else part.stop
            for start in range(part.start, stop, limits.parquet_rows):
                frame = table.slice(start, min(limits.parquet_rows, stop - start)).collect()
                rows_N = bad.rows + 1 + np.arange(len(frame))
                bad.rows += len(frame)
                yield TableChunk(frame, rows_N, (start + len(frame) - part.start) / (stop - part.start))
        except PARQUET_ERRORS as error:
            raise unreadable_file(path, error) from error

    return TableFiles(files, read, SplitBoundary.PARQUET_ROWS)
