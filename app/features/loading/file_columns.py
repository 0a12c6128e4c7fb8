"""`FileColumns`: judges the columns of a file by the schema before anything is written, so that no typo erases.

A hash is replaced whole: what a file does not name is gone afterwards. So a column that no field reads is refused where
a field goes without, and a field that no column is for is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from app.errors import DataError
from app.features.encoder import Encoder

LIKENESS = 0.7
"""Names are alike from this ratio of `difflib` on: `agee` and `age` have 0.86."""
MAX_SHAPES = 10_000
"""Rows of JSON lines each have keys of their own; so many sets of them are told apart."""
MAX_NAMED = 20


class FileColumns:
    """Collects the columns of the rows, and compares them with what one side of a schema reads."""

    def __init__(
        self, entity: str, id_field: str, encoder: Encoder | None, *, ignored: Iterable[str] = (), merge: bool = False
    ) -> None:
        """
        Args:
            entity: `users` or `items`, for messages.
            encoder: of the entity's side; None knows no fields, and refuses only a file without ids.
            ignored: columns that may be there for other programs.
            merge: fields that the file does not name keep what is stored, so that none goes without.
        """
        self._entity = entity
        self._id_field = id_field
        self._ignored = set(ignored)
        self._merge = merge
        stored = [field for field in encoder.fields if not field.is_id] if encoder else []
        self._has_schema = encoder is not None
        self._id_source = encoder.id_source if encoder else None
        self._readable = {field.raw_name for field in stored}
        self._needed = dict.fromkeys(field.raw_name for field in stored if encoder and field.entity == encoder.side)
        self._shapes: set[tuple[str, ...]] = set()
        self._columns: dict[str, None] = {}

    def add(self, values: Mapping[str, Any]) -> None:
        """Take note of the columns of one row."""
        shape = tuple(values)
        if shape in self._shapes:
            return
        if len(self._shapes) < MAX_SHAPES:
            self._shapes.add(shape)
        self._columns.update(dict.fromkeys(values))

    @property
    def lacking(self) -> list[str]:
        """The stored fields of the schema that no row names."""
        return [name for name in self._needed if name not in self._columns]

    @property
    def unread(self) -> list[str]:
        """The columns that no field reads and that were not said to be ignored."""
        known = self._readable | self._ignored | {self._id_field}
        if self._id_source:
            known.add(self._id_source)
        return [name for name in self._columns if name not in known] if self._has_schema else []

    def check_ids(self, path: object) -> None:
        """Raise DataError if no row has the column of the ids; the message names the one that looks like it."""
        if not self._columns or self._id_field in self._columns:
            return
        names = ", ".join(list(self._columns)[:MAX_NAMED])
        likely = self._likely_id()
        hint = f"use `--id {likely}`" if likely else "name the column of the ids with `--id`"
        raise DataError(f"{path}: {self._id_field}: there is no such column, only {names}; {hint}")

    def check(self, path: object) -> None:
        """Compare the columns with the schema.

        Raises:
            DataError: no column is a feature, or one that no field reads may be meant for a field that goes without.
        """
        unread, lacking = self.unread, self.lacking
        if self._needed and len(lacking) == len(self._needed):
            likely = ", ".join(self._describe(name) for name in unread[:MAX_NAMED])
            raise DataError(
                f"{path}: holds no column that a field of the {self._entity} reads ({', '.join(lacking[:MAX_NAMED])})"
                f"{f', only {likely}' if likely else ''}; nothing was written. `--delete` removes {self._entity}"
            )
        suspicious = unread if lacking else [name for name in unread if self._stands_in(name)]
        if not suspicious:
            return
        goes_without = f", and {', '.join(lacking[:MAX_NAMED])} would be erased" if lacking and not self._merge else ""
        ignore = " ".join(f"--ignore {name}" for name in suspicious)
        raise DataError(
            f"{path}: no field of the {self._entity} reads {', '.join(map(self._describe, suspicious[:MAX_NAMED]))}"
            f"{goes_without}; nothing was written. Rename it, or leave it out by `{ignore}`"
        )

    def _describe(self, name: str) -> str:
        like = self._like(name)
        return f"{name} (do you mean {like}?)" if like else name

    def _stands_in(self, name: str) -> bool:
        """Tell whether some row has this column and lacks the field that it is named like."""
        like = self._like(name)
        return bool(like) and any(name in shape and like not in shape for shape in self._shapes)

    def _like(self, name: str) -> str:
        """Return the field's column that is named most like this one, one that the file lacks first; empty if none."""
        plain = {_plain(column): column for column in self._readable}
        missing = {_plain(column): column for column in self.lacking}
        for names in (missing, plain):
            close = get_close_matches(_plain(name), names, n=1, cutoff=LIKENESS)
            if close:
                return names[close[0]]
        return ""

    def _likely_id(self) -> str:
        if self._id_source in self._columns:
            return self._id_source or ""
        side = self._entity.removesuffix("s")
        named = [name for name in self._columns if re.search(r"(?:id|key|code)$", name, re.IGNORECASE)]
        of_side = [name for name in self._columns if side in name.lower()]
        both = [name for name in named if name in of_side]
        return next(iter(both or named or of_side), "")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()) or name
