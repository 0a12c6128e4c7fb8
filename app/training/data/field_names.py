"""Give the fields of a proposed schema legal names, whatever the columns are called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from app.features.fields import NAME
from app.training.data.column_names import plain_name

FIELD_NAME = re.compile(NAME)
MAX_LENGTH = 60
"""Leaves room for what tells two of one name apart."""


def field_names(columns: Iterable[str]) -> dict[str, str]:
    """Return a field's name for each column: its own where that is one, else one made of its letters.

    `101` becomes f101, `user_id:token` user_id, `_c0` c0, and what has letters that no name has, `column_3`. All
    differ, and none is the name of another column.
    """
    columns = list(columns)
    taken, names = set(columns), {}
    for position, column in enumerate(columns, 1):
        if FIELD_NAME.fullmatch(column):
            names[column] = column
            continue
        name = base = _legal(column) or f"column_{position}"
        count = 2
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        taken.add(name)
        names[column] = name
    return names


def _legal(column: str) -> str:
    """Return a name made of a column's letters; empty where some have no like."""
    plain = unicodedata.normalize("NFKD", plain_name(column))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    if any(letter.isalnum() and not letter.isascii() for letter in letters):
        return ""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", letters).strip("_.-")[:MAX_LENGTH]
    return f"f{name}" if name[:1].isdigit() else name
