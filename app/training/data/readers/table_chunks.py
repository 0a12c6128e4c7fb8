"""Any supported table, a few rows at a time: delimited text and JSON lines, plain or gzipped, and Parquet.

Memory is that of one chunk whatever the size of the file. Rows that cannot be read are left out and noted.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import ConfigError, DataError, EncodingError
from app.features.loading.records import JSON_LINES, PARQUET, SEPARATORS
from app.features.slots import canonical_text
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.chunk import Chunk
from app.training.data.readers.line_blocks import Block, Lines, Span, blocks, line_ends, with_cells, without
from app.training.data.readers.text_file import unreadable
from app.training.data.sharding import Cut, FileChunks, data_files

PARQUET_ROWS = 65_536
FLOAT_EXACT = 2**53


def table_chunks(path: Path) -> FileChunks:
    """Chunks of a table, or of all of a folder or pattern, by what the names end in.

    Raises:
        ConfigError: a kind of file that is not known.
        DataError: not there, or empty, or of several kinds.
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
        return FileChunks(files, _parquet, Cut.ROWS)
    if kind in JSON_LINES:
        return FileChunks(files, _json_lines, Cut.LINES)
    return delimited_chunks(files, SEPARATORS.get(kind, ","))


def _kind(file: Path) -> str | None:
    kind = Path(file.name.removesuffix(".gz")).suffix
    known = (*SEPARATORS, *JSON_LINES, ".txt", *(PARQUET if file.suffix != ".gz" else ()))
    return kind if kind in known else None


def delimited_chunks(
    files: tuple[Path, ...], separator: str, header: list[str] | None = None, *, quoted: bool = True
) -> FileChunks:
    """
    Args:
        header: names of the columns where no file has a line that says so.
        quoted: cells may be within double quotes.
    """

    def read(path: Path, span: Span, bad: BadRows) -> Iterator[Chunk]:
        names = header
        if span.start and names is None:
            names, _ = _header(path, next(blocks(path)).text, separator)
        return delimited(path, blocks(path, span, quoted=quoted), bad, separator, names, quoted=quoted)

    return FileChunks(files, read, Cut.QUOTED_LINES if quoted else Cut.LINES)


def delimited(
    path: Path, parts: Iterator[Block], bad: BadRows, separator: str, header: list[str] | None, *, quoted: bool
) -> Iterator[Chunk]:
    """Chunks of the blocks of a file, the first of which begins with the header where there is none."""
    for text, fraction in parts:
        if header is None:
            header, text = _header(path, text, separator)
        lines = with_cells(text, separator, len(header), quoted=quoted)
        bad.add(f"have not {len(header)} columns", bad.rows + 1 + lines.bad)
        frame, lines = _parsed(path, lines, separator, header, bad, quoted)
        del text
        chunk = _chunk(frame, lines, fraction, bad)
        del frame, lines  # or they stay while the next block is read
        yield chunk
        del chunk


def _header(path: Path, text: bytes, separator: str) -> tuple[list[str], bytes]:
    line, _, rest = text.partition(b"\n")
    try:
        header = next(csv.reader([line.decode().rstrip("\r")], delimiter=separator), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: its first line is no header: {error}") from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the header names {twice[0]!r} twice")
    return header, rest


def _parsed(
    path: Path, lines: Lines, separator: str, header: list[str], bad: BadRows, quoted: bool
) -> tuple[pl.DataFrame, Lines]:
    quote = '"' if quoted and b'"' in lines.text else None
    for attempt in range(2):
        if not lines.text:
            return pl.DataFrame(schema=dict.fromkeys(header, pl.String)), lines
        try:
            frame = pl.read_csv(
                lines.text,
                separator=separator,
                has_header=False,
                new_columns=header,
                infer_schema=False,
                quote_char=quote,
            )
        except (pl.exceptions.PolarsError, OSError) as error:
            undecodable = _undecodable(lines.text, quote is not None) if attempt == 0 else np.empty(0, np.bool_)
            if not undecodable.any() or len(undecodable) != len(lines.good()):
                raise unreadable(path, error) from error
            bad.add("are not UTF-8", bad.rows + 1 + lines.good()[undecodable])
            lines = without(lines, undecodable, quoted=quote is not None)
            continue
        if len(frame) != len(lines.good()):
            raise DataError(
                f"{path}: cannot be read: quotes do not match in rows {bad.before() + bad.rows + 1:,} and after"
            )
        return frame, lines
    raise AssertionError("two attempts decide")


def _undecodable(text: bytes, quoted: bool) -> npt.NDArray[np.bool_]:
    def undecodable(start: int, stop: int) -> bool:
        try:
            text[start:stop].decode()
        except UnicodeDecodeError:
            return True
        return False

    stops = (line_ends(text, quoted=quoted) + 1).tolist()
    return np.array([undecodable(start, stop) for start, stop in pairwise([0, *stops])], np.bool_)


def _chunk(frame: pl.DataFrame, lines: Lines, fraction: float, bad: BadRows) -> Chunk:
    rows_N = bad.rows + 1 + lines.good()
    bad.rows += lines.rows
    return Chunk(frame, rows_N, fraction)


def _json_lines(path: Path, span: Span, bad: BadRows) -> Iterator[Chunk]:
    before = bad.rows
    for block in blocks(path, span):
        if span.start == 0 and bad.rows == before and block.text.lstrip().startswith(b"["):
            raise DataError(f"{path}: is one JSON array; one object on each line is needed")
        yield _json_chunk(block, bad)


def _json_chunk(block: Block, bad: BadRows) -> Chunk:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    wrong: list[int] = []
    for line in block.text.split(b"\n"):
        if not line.strip():
            continue
        bad.rows += 1
        try:
            rows.append(decode(line))
            numbers.append(bad.rows)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            wrong.append(bad.rows)
    bad.add("are not JSON objects", wrong)
    names = dict.fromkeys(name for row in rows for name in row)
    frame = pl.DataFrame({name: json_series(name, [row.get(name) for row in rows]) for name in names})
    return Chunk(frame, np.array(numbers, np.int64), block.fraction, open_ended=True)


def json_series(name: str, values: list[Any]) -> pl.Series:
    """A column of JSON values that encodes as they would one by one, whatever kinds there are among them."""
    kinds = {value.__class__ for value in values} - {type(None)}
    if kinds <= {str}:
        return pl.Series(name, values, dtype=pl.String)
    if kinds == {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    numbers = [value for value in values if value is not None]
    if kinds == {int} and all(abs(value) < 2**63 for value in numbers):
        return pl.Series(name, values, dtype=pl.Int64)
    if kinds <= {int, float} and float in kinds and all(abs(value) <= FLOAT_EXACT for value in numbers):
        return pl.Series(name, [None if value is None else float(value) for value in values], dtype=pl.Float64)
    if kinds == {list} and all(item is None or item.__class__ is str for value in numbers for item in value):
        return pl.Series(name, values, dtype=pl.List(pl.String))
    return pl.Series(name, [_json_text(name, value) for value in values], dtype=pl.String)


def stacked(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Chunks of one table under each other, whatever types a column has in them."""
    names = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    whole = []
    for name in names:
        pieces = [
            frame[name] if name in frame.columns else pl.Series(name, [None] * len(frame), dtype=pl.Null)
            for frame in frames
        ]
        known = {piece.dtype for piece in pieces if piece.null_count() < len(piece)}
        if len(known) <= 1:
            dtype = next(iter(known), pl.String())
            empty = pl.Series(name, [], dtype=dtype)
            whole.append(
                pl.concat(
                    [piece if piece.dtype == dtype else empty.extend_constant(None, len(piece)) for piece in pieces]
                )
            )
        else:
            whole.append(json_series(name, [value for piece in pieces for value in piece.to_list()]))
    return pl.DataFrame(whole)


def _json_text(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else canonical_text(value, name)
    except EncodingError:
        return str(value)


def _parquet(path: Path, span: Span, bad: BadRows) -> Iterator[Chunk]:
    try:
        frame = pl.scan_parquet(path)
        stop = frame.select(pl.len()).collect().item() if span.stop is None else span.stop
        for start in range(span.start, stop, PARQUET_ROWS):
            chunk = frame.slice(start, min(PARQUET_ROWS, stop - start)).collect()
            rows_N = bad.rows + 1 + np.arange(len(chunk))
            bad.rows += len(chunk)
            yield Chunk(chunk, rows_N, (start + len(chunk) - span.start) / (stop - span.start))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from error
