"""Select the lines of a block of text that have the right number of cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.features.tables.cell_quoting import NEWLINE, QUOTE, RETURN, SPOILED

IF_LATIN_1 = "`iconv -f ISO-8859-1 -t UTF-8` converts Latin-1"
NOT_UTF8 = f"are not UTF-8: {IF_LATIN_1}"
OPENS_QUOTE = "open a double quote and do not close it"
HAS_NUL = "hold a NUL byte"
HAS_RETURN = "hold a carriage return in the midst"


class BlockLines(NamedTuple):
    """Holds the good lines of a block, and tells which of its rows are bad. Blank lines are no rows."""

    text: bytes
    rows: int
    """Counts good and bad rows."""
    bad: npt.NDArray[np.int64]
    """Holds the positions of the bad rows among the block's rows, from 0."""
    reasons: tuple[tuple[str, npt.NDArray[np.int64]], ...] = ()
    """Holds the positions of the rows that are bad for each reason."""

    def good(self) -> npt.NDArray[np.int64]:
        """Return the positions of the good rows among the block's rows, from 0."""
        return np.delete(np.arange(self.rows), self.bad) if len(self.bad) else np.arange(self.rows)


def lines_with_cells(text: bytes, separator: str, cells: int, *, quoted: bool) -> BlockLines:
    """Return the lines of a block that have this number of cells; blank lines are dropped silently.

    Args:
        quoted: cells may be within quotes, which are regular (`cell_quoting`).
    """
    bytes_B = np.frombuffer(text, np.uint8)
    quotes_B = _count_quotes(text, bytes_B) if quoted else None
    ends, separators = _positions(bytes_B, ord(NEWLINE), quotes_B), _positions(bytes_B, ord(separator), quotes_B)
    lengths = np.diff(ends, prepend=-1)
    blank = (lengths == 1) | ((lengths == 2) & (bytes_B[ends - 1] == RETURN))
    separator_counts = np.diff(np.searchsorted(separators, ends), prepend=0)
    bad = separator_counts != cells - 1
    spoilt = _spoilt_lines(text, bytes_B, ends, lengths, quotes_B)
    lines = _select(text, lengths, blank, np.logical_or.reduce([bad, *spoilt.values()]))
    rows = np.cumsum(~blank) - 1
    reason = f"have not {cells} columns"
    if not blank.all() and (separator_counts[~blank] == cells).all():
        reason = f"have {cells + 1} columns, the header {cells}: R leaves out row names by row.names=FALSE"
    reasons = {reason: bad & ~np.logical_or.reduce([blank, *spoilt.values()]), **spoilt}
    return lines._replace(reasons=tuple((reason, rows[flags]) for reason, flags in reasons.items() if flags.any()))


def whole_lines(text: bytes) -> bytes:
    """Return the lines of a block that are not blank, whatever they hold."""
    bytes_B = np.frombuffer(text, np.uint8)
    ends = _positions(bytes_B, ord(NEWLINE), None)
    lengths = np.diff(ends, prepend=-1)
    blank = (lengths == 1) | ((lengths == 2) & (bytes_B[ends - 1] == RETURN))
    return _select(text, lengths, blank, np.zeros(len(ends), np.bool_)).text


def _spoilt_lines(
    text: bytes,
    bytes_B: npt.NDArray[np.uint8],
    ends: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    quotes_B: npt.NDArray[np.uint8] | None,
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return flags of the lines that hold what no cell does, by reason; each line has one."""
    lines_by_reason: dict[str, npt.NDArray[np.int64]] = {}
    if SPOILED in text:
        lines_by_reason[OPENS_QUOTE] = np.flatnonzero((lengths == 2) & (bytes_B[ends - 1] == SPOILED[0]))
    if b"\0" in text:
        lines_by_reason[HAS_NUL] = np.searchsorted(ends, np.flatnonzero(bytes_B == 0))
    if text.count(b"\r") != text.count(b"\r\n"):
        returns = _positions(bytes_B, RETURN, quotes_B)
        lines_by_reason[HAS_RETURN] = np.searchsorted(ends, returns[bytes_B[returns + 1] != ord(NEWLINE)])
    flags: dict[str, npt.NDArray[np.bool_]] = {}
    seen = np.zeros(len(ends), np.bool_)
    for reason, lines in lines_by_reason.items():
        flags[reason] = np.zeros(len(ends), np.bool_)
        flags[reason][lines] = True
        flags[reason] &= ~seen
        seen |= flags[reason]
    return flags


def without_lines(lines: BlockLines, bad: npt.NDArray[np.bool_], *, quoted: bool) -> BlockLines:
    """Return the same lines without further ones; `bad` has a flag for each of the good lines."""
    lengths = np.diff(line_ends(lines.text, quoted=quoted), prepend=-1)
    selected = _select(lines.text, lengths, np.zeros(len(bad), np.bool_), bad)
    return BlockLines(selected.text, lines.rows, np.sort(np.concatenate([lines.bad, lines.good()[bad]])), lines.reasons)


def line_ends(text: bytes, *, quoted: bool) -> npt.NDArray[np.int64]:
    """Return the positions of the line feeds that end the lines of a block."""
    bytes_B = np.frombuffer(text, np.uint8)
    return _positions(bytes_B, ord(NEWLINE), _count_quotes(text, bytes_B) if quoted else None)


def _count_quotes(text: bytes, bytes_B: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """Return the number of quotes up to each byte, modulo 256, an even number; None where there are none."""
    # A doubled quote closes and opens, as it should.
    return np.cumsum(bytes_B == QUOTE, dtype=np.uint8) if b'"' in text else None


def _positions(
    bytes_B: npt.NDArray[np.uint8], byte: int, quotes_B: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.int64]:
    """Return where a byte occurs outside of quotes."""
    positions = np.flatnonzero(bytes_B == byte)
    return positions if quotes_B is None else positions[quotes_B[positions] & 1 == 0]


def _select(
    text: bytes, lengths: npt.NDArray[np.int64], blank: npt.NDArray[np.bool_], bad: npt.NDArray[np.bool_]
) -> BlockLines:
    if blank.any() or bad.any():
        selected_B = np.repeat(~blank & ~bad, lengths)
        text = np.frombuffer(text, np.uint8)[selected_B].tobytes()
    return BlockLines(text, int((~blank).sum()), np.flatnonzero(bad[~blank]))
