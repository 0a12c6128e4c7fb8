"""Select the lines of a block of text that have the right number of cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

NEWLINE, RETURN, QUOTE = b"\n", ord("\r"), ord('"')


class BlockLines(NamedTuple):
    """Holds the good lines of a block, and tells which of its rows are bad. Blank lines are no rows."""

    text: bytes
    rows: int
    """Counts good and bad rows."""
    bad: npt.NDArray[np.int64]
    """Holds the positions of the bad rows among the block's rows, from 0."""

    def good(self) -> npt.NDArray[np.int64]:
        """Return the positions of the good rows among the block's rows, from 0."""
        return np.delete(np.arange(self.rows), self.bad) if len(self.bad) else np.arange(self.rows)


def lines_with_cells(text: bytes, separator: str, cells: int, *, quoted: bool) -> BlockLines:
    """Return the lines of a block that have this number of cells; blank lines are dropped silently."""
    bytes_B = np.frombuffer(text, np.uint8)
    ends, separators = _positions(bytes_B, ord(NEWLINE), quoted), _positions(bytes_B, ord(separator), quoted)
    lengths = np.diff(ends, prepend=-1)
    blank = (lengths == 1) | ((lengths == 2) & (bytes_B[ends - 1] == RETURN))
    separator_counts = np.diff(np.searchsorted(separators, ends), prepend=0)
    return _select(text, lengths, blank, separator_counts != cells - 1)


def without_lines(lines: BlockLines, bad: npt.NDArray[np.bool_], *, quoted: bool) -> BlockLines:
    """Return the same lines without further ones; `bad` has a flag for each of the good lines."""
    lengths = np.diff(line_ends(lines.text, quoted=quoted), prepend=-1)
    selected = _select(lines.text, lengths, np.zeros(len(bad), np.bool_), bad)
    return BlockLines(selected.text, lines.rows, np.sort(np.concatenate([lines.bad, lines.good()[bad]])))


def line_ends(text: bytes, *, quoted: bool) -> npt.NDArray[np.int64]:
    """Return the positions of the line feeds that end the lines of a block."""
    return _positions(np.frombuffer(text, np.uint8), ord(NEWLINE), quoted)


def _positions(bytes_B: npt.NDArray[np.uint8], byte: int, quoted: bool) -> npt.NDArray[np.int64]:
    """Return where a byte occurs, outside of double quotes if cells may be quoted."""
    if quoted and (bytes_B == QUOTE).any():
        # A doubled quote closes and opens, as it should. The sum wraps at 256, an even number.
        quotes_B = np.cumsum(bytes_B == QUOTE, dtype=np.uint8)
        return np.flatnonzero((bytes_B == byte) & (quotes_B & 1 == 0))
    return np.flatnonzero(bytes_B == byte)


def _select(
    text: bytes, lengths: npt.NDArray[np.int64], blank: npt.NDArray[np.bool_], bad: npt.NDArray[np.bool_]
) -> BlockLines:
    if blank.any() or bad.any():
        selected_B = np.repeat(~blank & ~bad, lengths)
        text = np.frombuffer(text, np.uint8)[selected_B].tobytes()
    return BlockLines(text, int((~blank).sum()), np.flatnonzero(bad[~blank]))
