"""Read small text files, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from app.errors import DataError

MAX_REASON = 200


def read_text(
    path: Path, separator: str, *, header: bool = True, quote: str | None = '"', encoding: str = "utf8"
) -> pl.DataFrame:
    """Read a delimited text file with every column as text and empty cells null. Raises PolarsError or OSError."""
    return pl.read_csv(
        path, separator=separator, has_header=header, quote_char=quote, encoding=encoding, infer_schema=False
    )


def unreadable_file(path: Path, error: Exception) -> DataError:
    """Return the error that says that a file cannot be read, with the first line of the reason."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return DataError(f"{path}: cannot be read: {reason[:MAX_REASON]}")
