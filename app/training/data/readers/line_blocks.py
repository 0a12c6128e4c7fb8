"""A text file, plain or gzipped, as blocks of whole lines, and the lines of a block that have the right width.

All of it on whole blocks of bytes: no step of Python per row.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from app.errors import DataError

BLOCK_BYTES = 4 << 20
"""As frames, keys and values it takes some 15 times as much; smaller ones are slower, by a fifth at half of it."""
MAX_BLOCKS = 16
"""A line, or a quoted cell, longer than so many blocks is not one."""
NEWLINE, RETURN, QUOTE = b"\n", ord("\r"), ord('"')
BOM = b"\xef\xbb\xbf"


class Block(NamedTuple):
    text: bytes
    """Whole lines, the last one ended too."""
    fraction: float
    """How much of the file has been read, 0 to 1."""


class Span(NamedTuple):
    """What of a file is read: from one place where a row begins to another, in bytes, of Parquet in rows."""

    start: int = 0
    stop: int | None = None
    """None is the end."""


WHOLE = Span()


def blocks(path: Path, span: Span = WHOLE, *, quoted: bool = False, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """
    Args:
        span: of a file that is not packed.
        quoted: a line ends outside of double quotes only.

    Raises:
        DataError: the file cannot be read, or a line has no end.
    """
    try:
        stop = path.stat().st_size if span.stop is None else span.stop
        total = max(stop - span.start, 1)
        with path.open("rb") as raw:
            packed = path.suffix == ".gz"
            file: IO[bytes] = cast(IO[bytes], gzip.open(raw)) if packed else raw  # noqa: SIM115
            file.seek(span.start)
            left = b"" if span.start else file.read(min(len(BOM), size if packed else total)).removeprefix(BOM)
            while fresh := file.read(size if packed else min(size, max(0, stop - raw.tell()))):
                left += fresh
                end = _last_line_end(left, quoted)
                if end:
                    text, left = left[:end], left[end:]
                    del fresh
                    # Never 1.0 while there is more: gzip reads ahead of what it hands out.
                    yield Block(text, min((raw.tell() - span.start) / total, 0.999))
                    del text
                elif len(left) > MAX_BLOCKS * size:
                    raise DataError(f"{path}: a line, or a quoted cell in it, is longer than {len(left):,} bytes")
            if left:
                left += b"" if left.endswith(NEWLINE) else NEWLINE
                if _last_line_end(left, quoted) < len(left):
                    raise DataError(f"{path}: a double quote is opened and not closed before the end of the file")
                yield Block(left, 1.0)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def next_line(path: Path, at: int, *, within_quotes: bool, quoted: bool, size: int = BLOCK_BYTES) -> int:
    """The first place from `at` on where a line begins, or the end of the file.

    Args:
        within_quotes: what is before `at` has an odd number of double quotes.
    """
    if at == 0:
        return 0
    with path.open("rb") as file:
        # A line may begin at `at` itself: the byte before says so.
        file.seek(at - 1)
        before = file.read(1)
        if before == NEWLINE and not (quoted and within_quotes):
            return at
        while fresh := file.read(size):
            bytes_B = np.frombuffer(fresh, np.uint8)
            ends_B = bytes_B == ord(NEWLINE)
            if quoted:
                quotes_B = np.cumsum(bytes_B == QUOTE, dtype=np.uint8)
                ends_B &= (quotes_B + within_quotes) & 1 == 0
                within_quotes ^= bool(int(quotes_B[-1]) & 1)
            ends = np.flatnonzero(ends_B)
            if len(ends):
                return at + int(ends[0]) + 1
            at += len(fresh)
    return at


def quotes(path: Path, span: Span, size: int = BLOCK_BYTES) -> int:
    """How many double quotes there are."""
    stop = path.stat().st_size if span.stop is None else span.stop
    count = 0
    with path.open("rb") as file:
        file.seek(span.start)
        while fresh := file.read(min(size, stop - file.tell())):
            count += fresh.count(b'"')
    return count


def _last_line_end(text: bytes, quoted: bool) -> int:
    if quoted and b'"' in text:
        ends = line_ends(text, quoted=True)
        return int(ends[-1]) + 1 if len(ends) else 0
    return text.rfind(NEWLINE) + 1


def _outside_quotes(bytes_B: npt.NDArray[np.uint8], wanted: int) -> npt.NDArray[np.bool_]:
    """Where a byte is, quoted places left out; a doubled quote opens and closes, which is what it should do."""
    parity_B = np.cumsum(bytes_B == QUOTE, dtype=np.uint8)  # it wraps at 256, an even number
    outside: npt.NDArray[np.bool_] = (bytes_B == wanted) & (parity_B & 1 == 0)
    return outside


class Lines(NamedTuple):
    """The good lines of a block, and where among its rows the bad ones are."""

    text: bytes
    rows: int
    """Good and bad, blank lines not counted."""
    bad: npt.NDArray[np.int64]
    """Places of bad rows, from 0."""

    def good(self) -> npt.NDArray[np.int64]:
        """Places of the good rows, from 0."""
        return np.delete(np.arange(self.rows), self.bad) if len(self.bad) else np.arange(self.rows)


def with_cells(text: bytes, separator: str, cells: int, *, quoted: bool) -> Lines:
    """The lines of a block that have this number of cells; blank lines are dropped silently."""
    bytes_B = np.frombuffer(text, np.uint8)
    ends, separators = _places(bytes_B, ord(NEWLINE), quoted), _places(bytes_B, ord(separator), quoted)
    lengths = np.diff(ends, prepend=-1)
    blank = (lengths == 1) | ((lengths == 2) & (bytes_B[ends - 1] == RETURN))
    counted = np.diff(np.searchsorted(separators, ends), prepend=0)
    return _kept(text, lengths, blank, counted != cells - 1)


def line_ends(text: bytes, *, quoted: bool) -> npt.NDArray[np.int64]:
    """Places of the line ends of a block."""
    return _places(np.frombuffer(text, np.uint8), ord(NEWLINE), quoted)


def without(lines: Lines, bad: npt.NDArray[np.bool_], *, quoted: bool) -> Lines:
    """The same without further lines; `bad` has a place for each of its good ones."""
    lengths = np.diff(line_ends(lines.text, quoted=quoted), prepend=-1)
    kept = _kept(lines.text, lengths, np.zeros(len(bad), np.bool_), bad)
    return Lines(kept.text, lines.rows, np.sort(np.concatenate([lines.bad, lines.good()[bad]])))


def _places(bytes_B: npt.NDArray[np.uint8], wanted: int, quoted: bool) -> npt.NDArray[np.int64]:
    if quoted and (bytes_B == QUOTE).any():
        return np.flatnonzero(_outside_quotes(bytes_B, wanted))
    return np.flatnonzero(bytes_B == wanted)


def _kept(
    text: bytes, lengths: npt.NDArray[np.int64], blank: npt.NDArray[np.bool_], bad: npt.NDArray[np.bool_]
) -> Lines:
    if blank.any() or bad.any():
        kept_B = np.repeat(~blank & ~bad, lengths)
        text = np.frombuffer(text, np.uint8)[kept_B].tobytes()
    return Lines(text, int((~blank).sum()), np.flatnonzero(bad[~blank]))
