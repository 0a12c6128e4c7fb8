"""Read delimited text (CSV, TSV and the like), plain or gzipped, in chunks. Unreadable rows are recorded."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import DataError
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.block_lines import BlockLines, line_ends, lines_with_cells, without_lines
from app.training.data.readers.line_blocks import FileRange, TextBlock, read_blocks
from app.training.data.readers.table_chunk import TableChunk
from app.training.data.readers.table_files import SplitBoundary, TableFiles
from app.training.data.readers.text_file import unreadable_file


def delimited_files(
    files: tuple[Path, ...],
    separator: str,
    header: list[str] | None = None,
    *,
    quoted: bool = True,
    limits: EncodingLimits = DEFAULT_LIMITS,
) -> TableFiles:
    """Return a reader of delimited files of one kind.

    Args:
        header: names of the columns where no file has a header line.
        quoted: cells may be within double quotes.
    """

    def read(path: Path, part: FileRange, bad: BadRows) -> Iterator[TableChunk]:
        names = header
        if part.start and names is None:
            names, _ = _split_header(path, next(read_blocks(path, size=limits.block_bytes)).text, separator)
        blocks = read_blocks(path, part, quoted=quoted, size=limits.block_bytes)
        return read_delimited(path, blocks, bad, separator, names, quoted=quoted)

    return TableFiles(files, read, SplitBoundary.QUOTED_LINES if quoted else SplitBoundary.LINES)


def read_delimited(
    path: Path, blocks: Iterator[TextBlock], bad: BadRows, separator: str, header: list[str] | None, *, quoted: bool
) -> Iterator[TableChunk]:
    """Yield a chunk for each block of a file; where `header` is None, the first block begins with the header line.

    Raises:
        DataError: the header or the text cannot be read.
    """
    for text, fraction in blocks:
        if header is None:
            header, text = _split_header(path, text, separator)
        lines = lines_with_cells(text, separator, len(header), quoted=quoted)
        bad.add(f"have not {len(header)} columns", bad.rows + 1 + lines.bad)
        frame, lines = _parse(path, lines, separator, header, bad, quoted)
        del text
        chunk = _chunk(frame, lines, fraction, bad)
        del frame, lines  # or they stay while the next block is read
        yield chunk
        del chunk


def _split_header(path: Path, text: bytes, separator: str) -> tuple[list[str], bytes]:
    line, _, rest = text.partition(b"\n")
    try:
        header = next(csv.reader([line.decode().rstrip("\r")], delimiter=separator), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: its first line is no header: {error}") from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the header names {twice[0]!r} twice")
    return header, rest


def _parse(
    path: Path, lines: BlockLines, separator: str, header: list[str], bad: BadRows, quoted: bool
) -> tuple[pl.DataFrame, BlockLines]:
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
            undecodable = _undecodable_lines(lines.text, quote is not None) if attempt == 0 else np.empty(0, np.bool_)
            if not undecodable.any() or len(undecodable) != len(lines.good()):
                raise unreadable_file(path, error) from error
            bad.add("are not UTF-8", bad.rows + 1 + lines.good()[undecodable])
            lines = without_lines(lines, undecodable, quoted=quote is not None)
            continue
        if len(frame) != len(lines.good()):
            raise DataError(
                f"{path}: cannot be read: quotes do not match in rows {bad.rows_before() + bad.rows + 1:,} and after"
            )
        return frame, lines
    raise AssertionError("the second attempt returns or raises")


def _undecodable_lines(text: bytes, quoted: bool) -> npt.NDArray[np.bool_]:
    def undecodable(start: int, stop: int) -> bool:
        try:
            text[start:stop].decode()
        except UnicodeDecodeError:
            return True
        return False

    stops = (line_ends(text, quoted=quoted) + 1).tolist()
    return np.array([undecodable(start, stop) for start, stop in pairwise([0, *stops])], np.bool_)


def _chunk(frame: pl.DataFrame, lines: BlockLines, fraction: float, bad: BadRows) -> TableChunk:
    rows_N = bad.rows + 1 + lines.good()
    bad.rows += lines.rows
    return TableChunk(frame, rows_N, fraction)
