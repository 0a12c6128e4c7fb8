"""Reading tables from disk, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from app.errors import DataError

MAX_REASON = 200


def read_table(path: Path) -> pl.DataFrame:
    """A CSV (plain or .gz), TSV or Parquet file.

    Text files are read as text throughout: a guessed number type would turn the zip code `01234` into 1234, which is
    another category. The encoder reads numbers itself.

    Raises:
        DataError: absent, empty, or not what its name says.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file" if not path.exists() else f"{path}: is a folder, not a file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
    names = path.name.removesuffix(".gz")
    try:
        if names.endswith((".parquet", ".pq")):
            return pl.read_parquet(path)
        return read_text(path, "\t" if names.endswith(".tsv") else ",")
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error


def read_text(
    path: Path, separator: str, *, header: bool = True, quote: str | None = '"', encoding: str = "utf8"
) -> pl.DataFrame:
    """A delimited text file with every column as text and empty cells null."""
    return pl.read_csv(
        path, separator=separator, has_header=header, quote_char=quote, encoding=encoding, infer_schema=False
    )


def unreadable(path: Path, error: Exception) -> DataError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return DataError(f"{path}: cannot be read: {reason[:MAX_REASON]}")
