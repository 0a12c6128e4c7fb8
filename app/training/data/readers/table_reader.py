"""Read any supported table by the ending of its name: delimited text, JSON lines and Parquet.

Memory is that of one chunk, whatever the size of the file.
"""

from __future__ import annotations

from pathlib import Path

from app.errors import ConfigError, DataError
from app.features.loading.record_file import JSON_LINES, PARQUET, SEPARATORS
from app.training.data.data_files import data_files
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.readers.delimited import delimited_files
from app.training.data.readers.json_lines import json_lines_files
from app.training.data.readers.parquet import parquet_files
from app.training.data.readers.table_files import TableFiles


def table_files(path: Path, limits: EncodingLimits = DEFAULT_LIMITS) -> TableFiles:
    """Return a reader of a table, or of all tables of a folder or pattern.

    Raises:
        ConfigError: the kind of file is not known.
        DataError: there is no such file, or it is empty, or the files are of several kinds.
    """
    files = data_files(path, lambda file: _kind(file) is not None)
    kinds = {_kind(file) for file in files}
    if None in kinds:
        known = [*SEPARATORS, *JSON_LINES, *PARQUET]
        raise ConfigError(f"{path}: the name should end in {', '.join(known)}, or .gz after a text format")
    if len(kinds) > 1:
        raise DataError(
            f"{path}: has files of several kinds, {' and '.join(sorted(map(str, kinds)))}; name those of one"
        )
    kind = str(kinds.pop())
    if kind in PARQUET:
        return parquet_files(files, limits)
    if kind in JSON_LINES:
        return json_lines_files(files, limits)
    return delimited_files(files, SEPARATORS.get(kind, ","), limits=limits)


def _kind(file: Path) -> str | None:
    kind = Path(file.name.removesuffix(".gz")).suffix
    known = (*SEPARATORS, *JSON_LINES, ".txt", *(PARQUET if file.suffix != ".gz" else ()))
    return kind if kind in known else None
