"""Read a text file, plain or gzipped, in blocks of whole lines. No step of Python is taken per row."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np

from app.errors import DataError
from app.features.tables.cell_quoting import NEWLINE, QUOTE, Quoting, are_regular, quoted_rows
from app.features.tables.table_kind import GZIP

BLOCK_BYTES = 4 << 20
HEAD_BYTES = 1 << 18
"""A header is no longer than this."""
MAX_BLOCKS = 16
"""A line, or a quoted cell, that is longer than this many blocks is an error of the file."""
BOM = b"\xef\xbb\xbf"


class TextBlock(NamedTuple):
    """Holds consecutive whole lines of a text file."""

    text: bytes
    """Holds whole lines, the last one ended by a line feed too."""
    fraction: float
    """Tells the share of the file, or of the range, that has been read, 0 to 1."""


class FileRange(NamedTuple):
    """Names a part of a file that begins and ends where a row does, in bytes of text or rows of Parquet."""

    start: int = 0
    stop: int | None = None
    """Names the end, exclusive; None is the end of the file."""


WHOLE_FILE = FileRange()


def is_gzipped(path: Path) -> bool:
    """Tell whether a text file is compressed, by its name."""
    return path.name.lower().endswith(GZIP)


def read_head(path: Path, size: int = HEAD_BYTES) -> tuple[bytes, bool]:
    """Return the first bytes of a text file, unpacked, and whether that is all of it. Raises DataError."""
    try:
        with path.open("rb") as raw:
            file: IO[bytes] = cast(IO[bytes], gzip.open(raw)) if is_gzipped(path) else raw  # noqa: SIM115
            head = file.read(size)
            return head, not file.read(1)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable_text(path, error) from error


def unreadable_text(path: Path, error: Exception) -> DataError:
    """Return the error that says that a text file cannot be read."""
    return DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")


def read_blocks(
    path: Path, part: FileRange = WHOLE_FILE, *, quoting: Quoting | None = None, size: int = BLOCK_BYTES
) -> Iterator[TextBlock]:
    """Yield a file, or a part of it, in blocks of about `size` bytes, without the mark of its encoding (BOM).

    Args:
        part: the part to read; a gzipped file is read to its end.
        quoting: cells may be within quotes, which are written anew where they are not regular (`cell_quoting`), so
            that they are in the blocks; None for text whose quotes mean nothing.

    Raises:
        DataError: the file cannot be read, or a line has no end.
    """
    try:
        stop = path.stat().st_size if part.stop is None else part.stop
        with path.open("rb") as raw:
            gzipped = is_gzipped(path)
            total = max(stop - (0 if gzipped else part.start), 1)
            file: IO[bytes] = cast(IO[bytes], gzip.open(raw)) if gzipped else raw  # noqa: SIM115
            file.seek(part.start)
            rest = b"" if part.start else file.read(min(len(BOM), size if gzipped else total)).removeprefix(BOM)
            while fresh := file.read(size if gzipped else min(size, max(0, stop - raw.tell()))):
                rest += fresh
                text, end = _complete_rows(path, rest, quoting, final=False)
                if end:
                    rest = rest[end:]
                    del fresh
                    # Never 1.0 while there is more: gzip reads ahead of what it hands out.
                    yield TextBlock(text, min((raw.tell() - (0 if gzipped else part.start)) / total, 0.999))
                    del text
                elif len(rest) > MAX_BLOCKS * size:
                    raise DataError(
                        f"{path}: a line, or a quoted cell in it, is longer than {len(rest):,} bytes: {rest[:60]!r}"
                    )
            if rest:
                rest += b"" if rest.endswith(NEWLINE) else NEWLINE
                yield TextBlock(_complete_rows(path, rest, quoting, final=True)[0], 1.0)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable_text(path, error) from error


def next_line_start(path: Path, position: int, *, within_quotes: bool, quoted: bool, size: int = BLOCK_BYTES) -> int:
    """Return the first byte at or after `position` where a line begins, or the size of the file.

    Args:
        within_quotes: the bytes before `position` hold an odd number of double quotes.
        quoted: a line feed within double quotes ends no line.

    Raises:
        OSError: the file cannot be read.
    """
    if position == 0:
        return 0
    with path.open("rb") as file:
        # A line may begin at the position itself: the byte before tells.
        file.seek(position - 1)
        before = file.read(1)
        if before == NEWLINE and not (quoted and within_quotes):
            return position
        while fresh := file.read(size):
            bytes_B = np.frombuffer(fresh, np.uint8)
            is_end_B = bytes_B == ord(NEWLINE)
            if quoted:
                quotes_B = np.cumsum(bytes_B == QUOTE, dtype=np.uint8)
                is_end_B &= (quotes_B + within_quotes) & 1 == 0
                within_quotes ^= bool(int(quotes_B[-1]) & 1)
            ends = np.flatnonzero(is_end_B)
            if len(ends):
                return position + int(ends[0]) + 1
            position += len(fresh)
    return position


class QuoteCount(NamedTuple):
    """Counts the double quotes in a part of a file, and tells whether a parser can begin behind it."""

    quotes: int
    regular_outside: bool
    """Tells that they are regular (`cell_quoting`) if none is open where the part begins,"""
    regular_within: bool
    """and if one is."""


def count_quotes(path: Path, part: FileRange, quoting: Quoting, size: int = BLOCK_BYTES) -> QuoteCount:
    """Count the double quotes in a part of a file, and judge them. Raises OSError if it cannot be read."""
    stop = path.stat().st_size if part.stop is None else part.stop
    count, regular = 0, [True, True]
    with path.open("rb") as file:
        position = part.start
        while position < stop:
            # Two neighbours on each side tell whether a quote is regular.
            begin = max(0, position - 2)
            file.seek(begin)
            text = file.read(min(size, stop - position) + position - begin + 2)
            length = min(size, stop - position)
            bytes_B = np.frombuffer(text, np.uint8)
            quotes = np.flatnonzero(bytes_B == QUOTE)
            quotes = quotes[(quotes >= position - begin) & (quotes < position - begin + length)]
            if len(quotes):
                for within in (0, 1):
                    open_here = (within + count) % 2 == 1
                    regular[within] &= are_regular(bytes_B, quotes, quoting, within=open_here)
                count += len(quotes)
            position += length
    return QuoteCount(count, regular[0], regular[1])


def _complete_rows(path: Path, text: bytes, quoting: Quoting | None, *, final: bool) -> tuple[bytes, int]:
    if quoting is not None:
        try:
            return quoted_rows(text, quoting, final=final)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    end = text.rfind(NEWLINE) + 1
    return (text if end == len(text) else text[:end]), end
