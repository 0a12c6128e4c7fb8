"""Read any supported table by the ending of its name: delimited text, JSON lines and Parquet.

Memory is that of one chunk, whatever the size of the file. What a file is, and how it is laid out, is found out by
`features/tables`, as `ctr load` finds it out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from app.features.tables.table_paths import table_paths
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.readers.delimited import delimited_files
from app.training.data.readers.json_lines import json_lines_files
from app.training.data.readers.parquet import parquet_files
from app.training.data.readers.table_files import TableFiles


def table_files(path: Path, limits: EncodingLimits = DEFAULT_LIMITS, escape: str | None = None) -> TableFiles:
    """Return a reader of a table, or of all tables of a folder or pattern.

    Args:
        escape: what escapes a quote within quotes, a backslash or another quote; None refuses a file with backslashes
            before quotes.

    Raises:
        ConfigError: the kind of file is not known.
        DataError: there is no such file, or it is empty, or the files are of several kinds.
    """
    paths, kind = table_paths(path)
    if kind.format == "parquet":
        files = parquet_files(paths.files, limits)
    elif kind.format == "json":
        files = json_lines_files(paths.files, limits)
    else:
        files = delimited_files(paths.files, escape=escape, limits=limits)
    own_notes = files.notes
    return replace(files, keys=paths.keys, notes=lambda: (*paths.notes, *own_notes()))
