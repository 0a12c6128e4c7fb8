"""Find out how a delimited file is laid out: its columns, what divides them, and where its rows begin."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import NamedTuple

from app.errors import DataError
from app.features.tables.block_lines import IF_LATIN_1
from app.features.tables.cell_quoting import NEWLINE, Quoting, first_row
from app.features.tables.line_blocks import BOM, read_head
from app.features.tables.table_kind import check_text, table_kind

CANDIDATES = (",", "\t", ";", "|")
SAMPLE_LINES = 50
MIN_PADDED = 3
"""Fewer lines may be alike by chance."""
MIN_VALUES = 3
"""So many names of columns that are values in them too are a row."""
NAMED = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_QUOTED = re.compile(rb'"(?:[^"]|"")*"')
_FORMULA = re.compile(rb'(?:^|[,;|\t])(="[^"\n]*"|"=""[^"\n]*""")(?=[,;|\t\r\n])', re.MULTILINE)
"""Matches a cell such as ="007", by which spreadsheets are made to keep text."""
_RULE = re.compile(rb"[-+=|: \t\r]+")
"""Matches a line that is drawn between the header and the rows."""
_EXCEL_HINT = re.compile(rb"sep=(.)\r?\n", re.IGNORECASE)
"""Matches a first line that tells Excel the separator."""


class DelimitedLayout(NamedTuple):
    """Says how to read a delimited file."""

    names: tuple[str, ...]
    """Names the columns, without the spaces around them."""
    quoting: Quoting
    body: int
    """Counts the bytes, once unpacked, before the first row."""
    note: str = ""
    """Says what divides the columns where the name of the file says otherwise."""

    @property
    def separator(self) -> str:
        """Return what divides the columns."""
        return self.quoting.separator


def delimited_layout(path: Path, escape: str | None = None) -> DelimitedLayout:
    """Read the header of a file.

    Raises:
        DataError: the file cannot be read, or is no text, or its first line is no header.
    """
    head, whole = read_head(path)
    check_text(path, head)
    body = len(BOM) if head.startswith(BOM) else 0
    excel = _EXCEL_HINT.match(head, body)
    body = excel.end() if excel else body
    kind = table_kind(path)
    usual = kind.separator if kind else ","
    text = head[body:] if not whole or head.endswith(NEWLINE) else head[body:] + NEWLINE
    lines = [line for line in text.split(NEWLINE)[: SAMPLE_LINES + 1] if line.strip()]
    lines = lines if whole or len(lines) > SAMPLE_LINES else lines[:-1] or lines
    if not lines:
        raise DataError(f"{path}: is empty")
    separator = excel[1].decode(errors="replace") if excel else choose_separator(lines, usual)
    if formula := _FORMULA.search(text):
        shown = formula[1].decode(errors="replace")[:40]
        raise DataError(f"{path}: has formulas in place of text, `{shown}`: export the values themselves")
    padded = _are_padded(lines, separator)
    quoting = Quoting(separator, escape, padded or _are_spaced(lines, separator), padded)
    while text.startswith((b"\n", b"\r\n")):
        blank = text.index(NEWLINE) + 1
        text, body = text[blank:], body + blank
    try:
        row, end = first_row(text, quoting, final=whole)
        cells = next(csv.reader([row.decode().rstrip("\r\n")], delimiter=separator, strict=True), [])
    except (UnicodeDecodeError, csv.Error, DataError) as error:
        hint = f"; {IF_LATIN_1}" if isinstance(error, UnicodeDecodeError) else ""
        raise DataError(f"{path}: cannot be read: its first line is no header: {error}{hint}") from error
    if not end:
        raise DataError(f"{path}: cannot be read: its first line, which names the columns, does not end")
    names = tuple(cell.strip() for cell in cells)
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the header names {twice[0]!r} twice")
    notes = [f"its columns are divided by {NAMED.get(separator, separator)}"] if separator != usual else []
    if not quoting.padded:
        notes += _oddities(lines[1:], names, quoting)
    note = f"{path.name}: {'; '.join(notes)}" if notes else ""
    return DelimitedLayout(_told_apart(names), quoting, body + end, note)


def _told_apart(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names, those that are blank told apart from the second on: spreadsheets write many after the last."""
    blank = [index for index, name in enumerate(names) if not name]
    return tuple(f" {index + 1}" if index in blank[1:] else name for index, name in enumerate(names))


def _oddities(rows: list[bytes], names: tuple[str, ...], quoting: Quoting) -> list[str]:
    """Say which columns have values that all begin or end in spaces, as those of CHAR do, and what is no header."""
    cells = [row.rstrip(b"\r").split(quoting.separator.encode()) for row in rows if b'"' not in row]
    header = [name.encode() for name in names]
    cells = [row for row in cells if len(row) == len(names) and row != header]
    if len(cells) < MIN_PADDED:
        return []
    columns = dict(zip(names, zip(*cells, strict=True), strict=True))
    spaces = ", ".join(
        name
        for name, column in columns.items()
        if all(cell.strip() and cell != (cell.rstrip(b" ") if quoting.spaced else cell.strip(b" ")) for cell in column)
    )
    notes = [f"{spaces}: every value has spaces at its ends, which a category keeps"] if spaces else []
    values = [name for name, column in columns.items() if name and name.encode() in column]
    if len(values) >= MIN_VALUES and 2 * len(values) >= len(names):
        notes.append(
            f"its first line names the columns {', '.join(values[:MIN_VALUES])}, which are values: add one of names"
        )
    return notes


def choose_separator(lines: list[bytes], usual: str) -> str:
    """Return what divides the columns: what is in the header, and as often in most of the lines that follow it."""
    counts = [{one: _QUOTED.sub(b"", line).count(one.encode()) for one in CANDIDATES} for line in lines]
    header, rows = counts[0], counts[1:]
    possible = [one for one in CANDIDATES if header[one]]
    if not possible:
        return usual

    def fits(one: str) -> tuple[float, bool, int]:
        alike = sum(row[one] == header[one] for row in rows) / max(len(rows), 1)
        return round(alike, 1), one == usual, header[one]

    return max(possible, key=fits)


def _are_spaced(lines: list[bytes], separator: str) -> bool:
    """Tell whether spaces follow every separator, in the header or in all the first rows."""

    def spaced(line: bytes) -> bool:
        later = _QUOTED.sub(b"", line).split(separator.encode())[1:]
        return bool(later) and all(cell.startswith(b" ") for cell in later)

    return spaced(lines[0]) or (len(lines) > 1 and all(map(spaced, lines[1:])))


def _are_padded(lines: list[bytes], separator: str) -> bool:
    """Tell whether spaces are the layout's, as in tables for the eye: around every separator, or to a fixed width."""
    cells = [
        line.rstrip(b"\r").split(separator.encode()) for line in lines if b'"' not in line and not _RULE.fullmatch(line)
    ]
    cells = [row for row in cells if len(row) == len(cells[0]) > 1]
    if len(cells) < MIN_PADDED or not any(map(bytes.strip, cells[0])):
        return False
    around = all(not cell or cell[:1] == b" " for row in cells for cell in row[1:]) and all(
        not cell or cell[-1:] == b" " for row in cells for cell in row[:-1]
    )
    widths = {tuple(len(cell.decode(errors="replace")) for cell in row) for row in cells}
    return around or (len(widths) == 1 and any(cell != cell.strip(b" ") for cell in cells[0]))
