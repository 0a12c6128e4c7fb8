"""Open Parquet by polars, with errors for what is none and for types that polars does not know."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from app.errors import DataError
from app.features.tables.table_kind import MAGIC, PARQUET_MAGICS

# DuckDB writes intervals, which polars reads only so. No field reads them, and they hold up no other column.
os.environ.setdefault("POLARS_IMPORT_INTERVAL_AS_STRUCT", "1")

PARQUET_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What polars raises for a file that it cannot read; a panic of its own is no Exception."""
HEAD_BYTES = 16


def scan_parquet(path: Path) -> pl.LazyFrame:
    """Return the rows of a Parquet file, to be read as they are needed.

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
    return pl.scan_parquet(path)
