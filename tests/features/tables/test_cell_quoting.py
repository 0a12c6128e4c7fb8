"""Quotes are read as Python's csv module reads them, cell by cell, whatever blocks the text comes in."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DataError
from app.features.tables.cell_quoting import SPOILED, Quoting, quoted_rows

COMMA = Quoting(",")
CELLS = st.text(alphabet='ab ",\n\\', max_size=6)
TABLES = st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6)


def cells(text: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.decode(), newline=""), strict=True))


def written(rows: list[list[str]], **options: object) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n", **options).writerows(rows)  # type: ignore[arg-type]
    return file.getvalue().encode()


@given(TABLES)
def test_what_is_quoted_as_it_should_be_stays_as_it_is(rows: list[list[str]]) -> None:
    text = written(rows)
    assert quoted_rows(text, Quoting(",", escape='"'), final=True) == (text, len(text))
    assert cells(quoted_rows(text, COMMA, final=True).text) == rows


@given(TABLES)
def test_backslashes_that_escape_are_read_as_such(rows: list[list[str]]) -> None:
    text = written(rows, doublequote=False, escapechar="\\", quoting=csv.QUOTE_ALL)
    assert cells(quoted_rows(text, Quoting(",", escape="\\"), final=True).text) == rows


LETTERS = st.text(alphabet='ab "', max_size=6).map(lambda text: text.lstrip('"'))


@given(st.lists(st.lists(LETTERS, min_size=2, max_size=2), min_size=1, max_size=6), st.booleans())
def test_a_quote_in_the_midst_is_a_letter(rows: list[list[str]], returns: bool) -> None:
    text = "".join(",".join(["x", *row]) + ("\r\n" if returns else "\n") for row in rows).encode()
    read = quoted_rows(text, COMMA, final=True)
    assert read.end == len(text)
    assert cells(read.text) == [["x", *row] for row in rows]


@given(TABLES, st.integers(0, 60))
def test_rows_are_the_same_in_any_blocks(rows: list[list[str]], cut: int) -> None:
    text = written(rows)
    quoting = Quoting(",", escape='"')
    first = quoted_rows(text[:cut], quoting, final=False) if cut else (b"", 0)
    rest = quoted_rows(text[first[1] :], quoting, final=True)
    assert first[0] + rest.text == text


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('x,Screen 42" black', 'x,"Screen 42"" black"'),
        ('x,"Deluxe" edition', 'x,"Deluxe edition"'),
        ('x,"a" "b"', 'x,"a ""b"""'),
        ('"a""b",y', '"a""b",y'),
        ('"C:\\",y', '"C:\\",y'),
        ('"[""a \\""b\\"""", 1]",y', '"[""a \\""b\\"""", 1]",y'),
        ('x,"open', SPOILED.decode()),
        ('x,"open,\ny,"Deluxe" edition', SPOILED.decode() + '\ny,"Deluxe edition"'),
        ('x,"two\nlines"', 'x,"two\nlines"'),
        ('x, "a"', 'x," ""a"""'),
    ],
)
def test_forms_of_quotes(row: str, expected: str) -> None:
    assert quoted_rows(row.encode() + b"\n", COMMA, final=True).text.decode() == expected + "\n"


def test_spaces_after_separators_come_before_quotes() -> None:
    text = b'x, "a, b", c "d"\n'
    assert quoted_rows(text, Quoting(",", spaced=True), final=True).text == b'x,"a, b"," c ""d"""\n'


@pytest.mark.parametrize(
    "row",
    [
        'x,"the \\"best\\" one, really"',
        'x,"size 7\\""\nx,"size 7\\""',
        'x,"size 7\\""',
        'x,"5\\", 6\\" pipes"',
        'x,"\\"all\\""',
    ],
)
def test_backslashes_before_quotes_are_refused_with_what_to_do(row: str) -> None:
    with pytest.raises(DataError, match=r"--escape '\\' reads it so"):
        quoted_rows(row.encode() + b"\n", COMMA, final=True)
    assert quoted_rows(row.encode() + b"\n", Quoting(",", "\\"), final=True).end == len(row) + 1
