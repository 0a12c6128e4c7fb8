"""Tell what kind of table a file is by its name, and refuse what only looks like one, with what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from app.errors import ConfigError, DataError

Format = Literal["delimited", "json", "parquet"]
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": ",", ".psv": "|"}
JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
GZIP = ".gz"
KNOWN = "the name should end in .csv, .tsv, .jsonl or .parquet, or .gz after a text format"
_SPREADSHEET = "a spreadsheet: save it as CSV in UTF-8"
_UNPACK = "compressed: unpack it, or compress it with gzip"
_TO_PARQUET = "write it as Parquet: pyarrow, pandas and Spark do"
FOREIGN = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), _SPREADSHEET),
    **dict.fromkeys((".zst", ".zstd", ".bz2", ".xz", ".lz4", ".snappy", ".zip", ".7z", ".rar", ".br"), _UNPACK),
    **dict.fromkeys((".tar", ".tgz"), "an archive: unpack it, and name the folder"),
    **dict.fromkeys((".feather", ".arrow", ".ipc"), f"Arrow's format: {_TO_PARQUET}"),
    ".orc": f"ORC: {_TO_PARQUET}",
    ".avro": f"Avro: {_TO_PARQUET}",
    **dict.fromkeys((".pkl", ".pickle", ".h5", ".hdf5", ".npy", ".npz", ".rds", ".rdata"), _TO_PARQUET),
    **dict.fromkeys((".db", ".sqlite", ".duckdb", ".sql"), "a database: export the table as CSV or Parquet"),
    **dict.fromkeys((".yaml", ".yml", ".xml", ".html"), "no table: write it as CSV or JSON lines"),
}
"""Says of the kinds that are not read what to do."""
PARQUET_MAGICS = (b"PAR1", b"PARE")
MAGIC = {
    b"\x1f\x8b": "is compressed with gzip: its name should end in .gz",
    b"PAR1": "is Parquet: its name should end in .parquet",
    b"PK\x03\x04": "is a zip archive or a spreadsheet (.xlsx): save it as CSV in UTF-8, or unpack it",
    b"\xd0\xcf\x11\xe0": f"is {_SPREADSHEET}",
    b"\x28\xb5\x2f\xfd": f"is {_UNPACK}",
    b"BZh": f"is {_UNPACK}",
    b"\xfd7zXZ": f"is {_UNPACK}",
    b"ARROW1": f"is in Arrow's format: {_TO_PARQUET}",
    b"FEA1": f"is in Arrow's format: {_TO_PARQUET}",
    b"\xff\xff\xff\xff": f"is in Arrow's format: {_TO_PARQUET}",
    b"ORC": f"is ORC: {_TO_PARQUET}",
    b"Obj\x01": f"is Avro: {_TO_PARQUET}",
    b"SQLite format 3": "is a database: export the table as CSV or Parquet",
    b"\xff\xfe": "is UTF-16: convert it, `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "is UTF-16: convert it, `iconv -f UTF-16 -t UTF-8`",
    b"\x00\x00\xfe\xff": "is UTF-32: convert it, `iconv -f UTF-32 -t UTF-8`",
}
"""Says what files are that begin with these bytes, whatever their names."""
WIDE_ENCODING = "holds NUL bytes, as UTF-16 does: convert it, `iconv -f UTF-16LE -t UTF-8`"


class TableKind(NamedTuple):
    """Says how a file is read."""

    format: Format
    suffix: str
    gzipped: bool = False

    @property
    def separator(self) -> str:
        """Return what usually divides the columns of such a file."""
        return SEPARATORS.get(self.suffix, ",")


def table_kind(path: Path) -> TableKind | None:
    """Return the kind of a table by its name; None if it is none that is read."""
    name = path.name.lower()
    gzipped = name.endswith(GZIP)
    suffix = Path(name.removesuffix(GZIP)).suffix
    if suffix in SEPARATORS:
        return TableKind("delimited", suffix, gzipped)
    if suffix in JSON_LINES:
        return TableKind("json", suffix, gzipped)
    return TableKind("parquet", suffix) if suffix in PARQUET and not gzipped else None


def known_kind(path: Path) -> TableKind:
    """Return the kind of a table by its name. Raises ConfigError, which says what to do, if it is none that is read."""
    kind = table_kind(path)
    if kind is None:
        suffix = Path(path.name.lower().removesuffix(GZIP)).suffix
        foreign = FOREIGN.get(suffix) or FOREIGN.get(path.suffix.lower())
        raise ConfigError(f"{path}: {f'is {foreign}' if foreign else KNOWN}")
    return kind


def check_text(path: Path, head: bytes) -> None:
    """Raise DataError if the first bytes of a text file are not text in UTF-8; it says what the file is."""
    for magic, meaning in MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{path}: {meaning}")
    line = head.partition(b"\n")[0]
    if line.count(b"\0") * 3 >= len(line) > 0:
        raise DataError(f"{path}: {WIDE_ENCODING}")
    if b"\r" in head and b"\n" not in head:
        raise DataError(f"{path}: its lines end in a carriage return alone: convert it, `tr '\\r' '\\n'`")
