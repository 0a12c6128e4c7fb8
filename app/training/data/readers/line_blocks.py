"""Read a text file, plain or gzipped, in blocks of whole lines. No step of Python is taken per row."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np

from app.errors import DataError
from app.training.data.encoding_limits import DEFAULT_LIMITS
from app.training.data.readers.block_lines import NEWLINE, QUOTE, line_ends

BLOCK_BYTES = DEFAULT_LIMITS.block_bytes
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


def read_blocks(
    path: Path, part: FileRange = WHOLE_FILE, *, quoted: bool = False, size: int = BLOCK_BYTES
) -> Iterator[TextBlock]:
    """Yield a file, or a part of it, in blocks of about `size` bytes.

    Args:
        part: the part to read; a gzipped file is read whole.
        quoted: a line feed within double quotes ends no line.

    Raises:
        DataError: the file cannot be read, or a line has no end.
    """
    try:
        stop = path.stat().st_size if part.stop is None else part.stop
        total = max(stop - part.start, 1)
        with path.open("rb") as raw:
            gzipped = path.suffix == ".gz"
            file: IO[bytes] = cast(IO[bytes], gzip.open(raw)) if gzipped else raw  # noqa: SIM115
            file.seek(part.start)
            rest = b"" if part.start else file.read(min(len(BOM), size if gzipped else total)).removeprefix(BOM)
            while fresh := file.read(size if gzipped else min(size, max(0, stop - raw.tell()))):
                rest += fresh
                end = _last_line_end(rest, quoted)
                if end:
                    text, rest = rest[:end], rest[end:]
                    del fresh
                    # Never 1.0 while there is more: gzip reads ahead of what it hands out.
                    yield TextBlock(text, min((raw.tell() - part.start) / total, 0.999))
                    del text
                elif len(rest) > MAX_BLOCKS * size:
                    raise DataError(f"{path}: a line, or a quoted cell in it, is longer than {len(rest):,} bytes")
            if rest:
                rest += b"" if rest.endswith(NEWLINE) else NEWLINE
                if _last_line_end(rest, quoted) < len(rest):
                    raise DataError(f"{path}: a double quote is opened and not closed before the end of the file")
                yield TextBlock(rest, 1.0)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


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


def count_quotes(path: Path, part: FileRange, size: int = BLOCK_BYTES) -> int:
    """Count the double quotes in a part of a file. Raises OSError if it cannot be read."""
    stop = path.stat().st_size if part.stop is None else part.stop
    count = 0
    with path.open("rb") as file:
        file.seek(part.start)
        while fresh := file.read(min(size, stop - file.tell())):
            count += fresh.count(b'"')
    return count


def _last_line_end(text: bytes, quoted: bool) -> int:
    if quoted and b'"' in text:
        ends = line_ends(text, quoted=True)
        return int(ends[-1]) + 1 if len(ends) else 0
    return text.rfind(NEWLINE) + 1
