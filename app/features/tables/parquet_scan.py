"""Open Parquet by polars, with errors for what is none and for types that polars does not know."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from app.errors import DataError
from app.features.tables.table_kind import MAGIC, PARQUET_MAGICS

INTERVAL = pl.Struct({"months": pl.Int32, "days": pl.Int32, "nanoseconds": pl.Duration("ns")})
"""Intervals of DuckDB are such structs where `POLARS_IMPORT_INTERVAL_AS_STRUCT` is set, and else end in a panic."""
PARQUET_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What polars raises for a file that it cannot read; a panic of its own is no Exception."""
HEAD_BYTES = 16


def scan_parquet(path: Path) -> pl.LazyFrame:
    """Return the rows of a Parquet file, to be read as they are needed, without intervals, which no field reads.

    Raises:
        DataError: the file does not begin as Parquet does; it says what it is. Or it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not head.startswith(PARQUET_MAGICS):
        meaning = next((meaning for magic, meaning in MAGIC.items() if head.startswith(magic)), "")
        is_text = head.isascii() and head.split(b"\n")[0].rstrip(b"\r").decode().isprintable()
        other = "it is text: its name should end in .csv, .tsv or .jsonl" if is_text else "it is not Parquet"
        raise DataError(f"{path}: {meaning or f'cannot be read: {other}'}")
    frame = pl.scan_parquet(path)
    return frame.drop(name for name, dtype in frame.collect_schema().items() if dtype == INTERVAL)
