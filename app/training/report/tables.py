"""HTML tables, with every word escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, own: str | None = None, words: bool = False
) -> str:
    """
    Args:
        own: first cell of the row that the page is about.
        words: the second column is text too.
    """
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = ""
    for row in rows:
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        body += f'<tr class="own">{cells}</tr>\n' if own is not None and row[0] == own else f"<tr>{cells}</tr>\n"
    kind = ' class="words"' if words else ""
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table{kind}>{said}<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def number(value: float | None, digits: int = 4) -> str:
    """A dash where it cannot be said."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    if share is None:
        return "–"
    return f"{share:.1%}" if share == 0 or share >= 0.001 else "<0.1%"
