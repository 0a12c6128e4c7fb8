"""Read delimited text (CSV, TSV and the like), plain or gzipped, in chunks. Unreadable rows are recorded."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import DataError
from app.features.tables.block_lines import NOT_UTF8, BlockLines, line_ends, lines_with_cells, without_lines
from app.features.tables.cell_quoting import Quoting
from app.features.tables.delimited_layout import DelimitedLayout, delimited_layout
from app.features.tables.line_blocks import FileRange, TextBlock, read_blocks
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.table_chunk import TableChunk
from app.training.data.readers.table_files import SplitBoundary, TableFiles
from app.training.data.readers.text_file import unreadable_file


def delimited_files(
    files: tuple[Path, ...],
    *,
    fixed: DelimitedLayout | None = None,
    escape: str | None = None,
    quoted: bool = True,
    limits: EncodingLimits = DEFAULT_LIMITS,
) -> TableFiles:
    """Return a reader of delimited files of one kind.

    Args:
        fixed: how all files are laid out, which have no header; None looks at each file.
        escape: what `--escape` says of backslashes.
        quoted: cells may be within double quotes.
    """

    @cache
    def layout(path: Path) -> DelimitedLayout:
        return fixed or delimited_layout(path, escape)

    def read(path: Path, part: FileRange, bad: BadRows) -> Iterator[TableChunk]:
        file_layout = layout(path)
        stop = part.stop
        begin = max(part.start, file_layout.body)
        if stop is not None and stop <= begin:
            return
        quoting = file_layout.quoting if quoted else None
        blocks = read_blocks(path, FileRange(begin, stop), quoting=quoting, size=limits.block_bytes)
        yield from read_delimited(path, blocks, bad, file_layout, quoted=quoted)

    def quoting_of(path: Path) -> Quoting:
        return layout(path).quoting

    def separator_of(path: Path) -> str:
        return layout(path).separator

    def notes() -> tuple[str, ...]:
        return tuple(dict.fromkeys(layout(file).note for file in files if layout(file).note))

    return TableFiles(
        files,
        read,
        SplitBoundary.LINES,
        quoting_of if quoted else None,
        separator_of,
        notes if fixed is None else tuple,
    )


def read_delimited(
    path: Path, blocks: Iterator[TextBlock], bad: BadRows, layout: DelimitedLayout, *, quoted: bool
) -> Iterator[TableChunk]:
    """Yield a chunk for each block of the rows of a file.

    Raises:
        DataError: the text cannot be read.
    """
    header, separator = list(layout.names), layout.separator
    any_rows = False
    for text, fraction in blocks:
        lines = lines_with_cells(text, separator, len(header), quoted=quoted)
        for reason, rows in lines.reasons:
            bad.add(reason, bad.rows + 1 + rows)
        frame, lines = _parse(path, lines, separator, header, bad, quoted)
        del text
        if layout.quoting.padded:
            frame = frame.with_columns(pl.all().str.strip_chars(" "))
        elif layout.quoting.spaced:
            frame = frame.with_columns(pl.all().str.strip_chars_start(" "))
        chunk = _chunk(frame, lines, fraction, bad)
        del frame, lines  # or they stay while the next block is read
        yield chunk
        any_rows = True
        del chunk
    if not any_rows:  # so that its columns are known
        yield TableChunk(pl.DataFrame(schema=dict.fromkeys(header, pl.String)), np.empty(0, np.int64), 1.0)


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
            bad.add(NOT_UTF8, bad.rows + 1 + lines.good()[undecodable])
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
