r"""Read quotes in delimited text as spreadsheets and pandas do, and write them so that any parser agrees.

A double quote opens a quoted cell only where the cell begins; elsewhere it is a letter: `Screen 42" black`. Within a
quoted cell two quotes are one, and what follows the closing quote belongs to the cell: `"Deluxe" edition` is Deluxe
edition. A quote that is opened and not closed, or closed on a later line in the midst of a cell, spoils its line alone.

Spark, Hive and MySQL write `\"` for a quote within quotes. Read by the rules above that is another value, or another
number of cells, so that a file with such is refused unless `--escape` says what is meant.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.errors import DataError

NEWLINE, RETURN, QUOTE, BACKSLASH = b"\n", ord("\r"), ord('"'), ord("\\")
SPOILED = b"\x1e"
"""This byte alone on a line stands for a line that opens a quote and does not close it."""
ESCAPE_HINT = (
    "a backslash before a quote, as Spark, Hive and MySQL escape it: --escape '\\' reads it so, "
    "--escape '\"' as the letter that it is to spreadsheets"
)
ESCAPES = ("\\", '"')
"""Choices of `--escape`: a backslash escapes the next letter, or a quote only ever escapes a quote."""


class Quoting(NamedTuple):
    """Says how the cells of a delimited file are divided and quoted."""

    separator: str
    escape: str | None = None
    """Says what `--escape` does; None refuses a file that would need it."""
    spaced: bool = False
    """Tells that spaces follow every separator: a quote after them opens a cell too."""
    padded: bool = False
    """Tells that spaces around cells are the layout's, on both sides."""


class QuotedRows(NamedTuple):
    """Holds whole rows whose quotes are all regular: around a cell, or doubled within."""

    text: bytes
    end: int
    """Tells how many bytes of the raw text the rows took; 0 if the first one is not complete."""


def quoted_rows(raw: bytes, quoting: Quoting, *, final: bool) -> QuotedRows:
    """Return the rows that are complete in some raw text, which begins where a row does, with regular quotes.

    Args:
        final: nothing comes after it; it ends with a line feed.

    Raises:
        DataError: backslashes escape quotes, and nobody said so.
    """
    end = raw.rfind(NEWLINE) + 1
    escaped = quoting.escape == "\\" and b"\\" in raw
    if b'"' not in raw and not escaped:
        return QuotedRows(raw if end == len(raw) else raw[:end], end)
    if not escaped:
        bytes_B = np.frombuffer(raw, np.uint8)
        quotes = np.flatnonzero(bytes_B == QUOTE)
        ends = line_ends(bytes_B, quotes)
        end = int(ends[-1]) + 1 if len(ends) else 0
        if end and are_regular(bytes_B[:end], quotes[quotes < end], quoting) and not (final and end < len(raw)):
            return QuotedRows(raw if end == len(raw) else raw[:end], end)
    return _Scan(raw, quoting, final=final).rows()


def line_ends(bytes_B: npt.NDArray[np.uint8], quotes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the positions of the line feeds outside of quotes, which are all regular."""
    ends = np.flatnonzero(bytes_B == ord(NEWLINE))
    return ends[np.searchsorted(quotes, ends) & 1 == 0] if len(quotes) else ends


def are_regular(
    bytes_B: npt.NDArray[np.uint8], quotes: npt.NDArray[np.int64], quoting: Quoting, *, within: bool = False
) -> bool:
    """Tell whether all quotes are around a cell or doubled within, and no backslash makes them ambiguous.

    Args:
        bytes_B: text that begins and ends where a row does, or a part of it whose neighbours are not judged.
        quotes: the positions of its quotes.
        within: a quote is open where it begins.
    """
    opening, closing = (quotes[int(within) :: 2], quotes[1 - int(within) :: 2])
    before = bytes_B[np.maximum(opening - 1, 0)]
    separator = ord(quoting.separator)
    opens = (opening == 0) | (before == separator) | (before == ord(NEWLINE)) | (before == QUOTE)
    last = len(bytes_B) - 1
    after, second = (bytes_B[np.minimum(closing + more, last)] for more in (1, 2))
    closes = (closing == last) | (after == separator) | (after == ord(NEWLINE)) | (after == QUOTE)
    closes |= (after == RETURN) & ((second == ord(NEWLINE)) | (closing + 1 >= last))
    if quoting.escape != '"':
        closes &= (closing == 0) | (bytes_B[np.maximum(closing - 1, 0)] != BACKSLASH)
    return bool(opens.all() and closes.all())


def first_row(raw: bytes, quoting: Quoting, *, final: bool) -> QuotedRows:
    """Return the first row of some raw text as `quoted_rows` does."""
    text, end = _Scan(raw, quoting, final=final).row(0) or (b"", 0)
    return QuotedRows(text, end)


class _Patterns(NamedTuple):
    plain_lines: re.Pattern[bytes]
    cell: re.Pattern[bytes]


@cache
def _patterns(separator: str, *, escaped: bool, spaced: bool) -> _Patterns:
    end = re.escape(separator.encode())
    if escaped:
        inner, plain, lines = rb'[^"\\]++|\\.|""', rb"(?:[^%b\n\\]|\\.)", rb'[^"\n\\]*+\n'
    else:
        inner, plain, lines = rb'[^"]++|""', rb"[^%b\n]", rb'[^"\n]*+\n'
    plain = plain.replace(b"%b", end)
    lead = rb" *+" if spaced else b""
    cell = rb'(?:%b"(?P<inner>(?:%b)*+)"(?P<tail>%b*+)|(?P<plain>(?!%b")%b*+))(?P<end>%b|\n)'
    cell %= (lead, inner, plain, lead, plain, end)
    return _Patterns(re.compile(rb"(?:%b)++" % lines), re.compile(cell, re.DOTALL))


class _Scan:
    """Reads text cell by cell, where its quotes are not regular."""

    def __init__(self, raw: bytes, quoting: Quoting, *, final: bool) -> None:
        self._raw, self._quoting, self._final = raw, quoting, final
        self._patterns = _patterns(quoting.separator, escaped=quoting.escape == "\\", spaced=quoting.spaced)

    def rows(self) -> QuotedRows:
        rows: list[bytes] = []
        at = 0
        while at < len(self._raw):
            plain = self._patterns.plain_lines.match(self._raw, at)
            if plain:
                rows.append(plain[0])
                at = plain.end()
                continue
            row = self.row(at)
            if row is None and not self._final:
                break
            if row is None:
                end = self._raw.index(NEWLINE, at) + 1
                if self._quoting.escape is None and b'\\"' in self._raw[at:end]:
                    raise DataError(self._escape_error(at))
                row = SPOILED + NEWLINE, end
            rows.append(row[0])
            at = row[1]
        return QuotedRows(b"".join(rows), at)

    def row(self, start: int) -> tuple[bytes, int] | None:
        """Return a row with regular quotes, and where it ends; None if it is not complete."""
        cells: list[bytes] = []
        at, ends_in_backslash = start, False
        while True:
            cell = self._patterns.cell.match(self._raw, at)
            if cell is None:
                return None
            inner, tail, plain, end = cell.group("inner", "tail", "plain", "end")
            at = cell.end()
            if inner is None:
                if ends_in_backslash and b'"' in plain:
                    raise DataError(self._escape_error(cell.start()))
                cells.append(self._plain(plain))
            else:
                tail_is_empty = not tail or (tail == b"\r" and end == NEWLINE)
                if self._quoting.escape is None:
                    ends_in_backslash |= _has_odd_backslash(inner, len(inner))
                    if not tail_is_empty and (ends_in_backslash or _escapes_doubled(inner)):
                        raise DataError(self._escape_error(cell.start()))
                if NEWLINE in inner and not tail_is_empty:
                    return SPOILED + NEWLINE, self._raw.index(NEWLINE, start) + 1
                cells.append(self._quoted(inner, tail, tail_is_empty))
            cells.append(end)
            if end == NEWLINE:
                return b"".join(cells), at

    def _plain(self, cell: bytes) -> bytes:
        line_end = b"\r" if cell.endswith(b"\r") else b""
        text = cell.removesuffix(line_end)
        if self._quoting.escape == "\\":
            unescaped = self._unescape(text)
            if unescaped == text and b'"' not in text:
                return cell
            text = unescaped
        elif b'"' not in text:
            return cell
        return b'"' + text.replace(b'"', b'""') + b'"' + line_end

    def _quoted(self, inner: bytes, tail: bytes, tail_is_empty: bool) -> bytes:
        if self._quoting.escape == "\\" and b"\\" in inner + tail:
            text = self._unescape(inner)
            line_end = b"\r" if tail.endswith(b"\r") else b""
            text += self._unescape(tail.removesuffix(line_end))
            return b'"' + text.replace(b'"', b'""') + b'"' + line_end
        if tail_is_empty:
            return b'"' + inner + b'"' + tail
        line_end = b"\r" if tail.endswith(b"\r") else b""
        return b'"' + inner + tail.removesuffix(line_end).replace(b'"', b'""') + b'"' + line_end

    def _unescape(self, text: bytes) -> bytes:
        # Of other letters the backslash stays, as Spark has it: \N is Hive's null.
        escapable = rb'\\(["\\\n' + re.escape(self._quoting.separator.encode()) + rb'])|"(")'
        return re.sub(escapable, rb"\1\2", text)

    def _escape_error(self, at: int) -> str:
        begin = self._raw.rfind(NEWLINE, 0, at) + 1
        line = self._raw[begin : self._raw.find(NEWLINE, begin)].decode(errors="replace").strip()
        return f"the line `{line[:80]}` has {ESCAPE_HINT}"


def _has_odd_backslash(text: bytes, end: int) -> bool:
    backslashes = 0
    while backslashes < end and text[end - 1 - backslashes] == BACKSLASH:
        backslashes += 1
    return backslashes % 2 == 1


def _escapes_doubled(inner: bytes) -> bool:
    """Tell whether a doubled quote follows a single backslash, as in `"7\\""`, which ends a cell that Spark wrote.

    In JSON within a cell it is an escaped quote, but there the cell ends with its closing quote.
    """
    at = inner.find(b'\\""')
    while at >= 0:
        if _has_odd_backslash(inner, at + 1):
            return True
        at = inner.find(b'\\""', at + 1)
    return False
