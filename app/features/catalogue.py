"""`Catalogue`: the titles and features of items and users that the page shows, from files that the operator names.

It is for people who look something up, and not for ranking, which reads features from the store.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import structlog

from app.errors import ConfigError, DataError, EncodingError
from app.features.loading.record_file import RecordFile
from app.features.loading.stored_text import stored_id
from app.features.tables.table_kind import table_kind

Kind = Literal["items", "users"]
KINDS: tuple[Kind, Kind] = ("items", "users")
MAX_ENTRIES = 100_000
"""Entries of a kind that are held, about 50 MB of them; the rest of a file is not read."""
MAX_FACETS = 60
"""Values of a column that can be chosen from; a column with more is none to choose by."""
MAX_FACET_COLUMNS = 20
MAX_TEXT = 200
"""Characters of a value that are kept."""
ID_NAMES: Mapping[Kind, tuple[str, ...]] = {"items": ("id", "item_id"), "users": ("id", "user_id")}
TITLE_NAMES = ("title", "name")

log = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, str]).decode


class Entry(NamedTuple):
    """An item or a user."""

    id: str
    title: str
    """Empty where the file has none."""
    features: dict[str, str]
    """The other columns, as text."""


class Found(NamedTuple):
    """What a search found."""

    total: int
    entries: list[Entry]
    """The first of them, in the order of the file."""


class Entries:
    """The items or the users of a catalogue, which can be searched."""

    def __init__(self, rows: Iterator[tuple[str, str, dict[str, str], dict[str, list[str]]]]) -> None:
        """Take in (id, title, features, words of each column) rows, MAX_ENTRIES at most; a repeated id counts once."""
        self._ids: list[str] = []
        self._titles: list[str] = []
        self._searched: list[str] = []
        self._features: list[bytes] = []
        self._by_id: dict[str, int] = {}
        self.complete = True
        """Whether every row was taken in."""
        members: dict[str, dict[str, array[int]]] = {}
        """Column to value to the entries that have it, of columns of few values."""
        many: set[str] = set()
        for entry_id, title, features, words in rows:
            if entry_id in self._by_id:
                continue
            if len(self._ids) == MAX_ENTRIES:
                self.complete = False
                break
            number = self._by_id[entry_id] = len(self._ids)
            self._ids.append(entry_id)
            self._titles.append(title)
            self._searched.append(title.casefold())
            self._features.append(_encode(features))
            for column in [name for name in words if name not in many]:
                of_column = members.setdefault(column, {})
                for word in dict.fromkeys(words[column]):
                    of_column.setdefault(word, array("I")).append(number)
                if len(of_column) > MAX_FACETS:
                    many.add(column)
                    del members[column]
        chosen = [column for column, values in members.items() if len(values) > 1][:MAX_FACET_COLUMNS]
        self._members = {column: members[column] for column in chosen}

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def facets(self) -> dict[str, list[str]]:
        """Columns of few values, each with its values, the most frequent first."""
        return {
            column: sorted(values, key=lambda value: -len(values[value])) for column, values in self._members.items()
        }

    def search(self, text: str = "", facet: tuple[str, str] | None = None, limit: int = 20) -> Found:
        """Find entries whose title contains a text in any case, or whose id it is.

        Args:
            facet: a column and the value that entries must have there.
            limit: how many to return; all are counted.
        """
        among: Sequence[int] = range(len(self._ids))
        if facet is not None:
            among = self._members.get(facet[0], {}).get(facet[1], array("I"))
        wanted = text.strip().casefold()
        if wanted:
            exact = self._by_id.get(text.strip())
            found = [number for number in among if number != exact and wanted in self._searched[number]]
            if exact is not None and exact in among:
                found.insert(0, exact)
            among = found
        return Found(len(among), [self._entry(number) for number in among[:limit]])

    def by_ids(self, ids: Sequence[str]) -> list[Entry]:
        """Return the entries of those ids that are known, in the order of the ids."""
        return [self._entry(self._by_id[entry_id]) for entry_id in ids if entry_id in self._by_id]

    def _entry(self, number: int) -> Entry:
        return Entry(self._ids[number], self._titles[number], _decode(self._features[number]))


class Catalogue:
    """Items and users that can be looked up. They are read when first asked for."""

    def __init__(self, path: Path) -> None:
        """
        Args:
            path: a file of items, or a folder with `items` and, where users are to be shown, `users`: CSV, TSV, JSON
                lines or Parquet, with a column `id`.

        Raises ConfigError if there is no such file.
        """
        self._files = _files_of(path)
        self._entries: dict[Kind, Entries] = {}

    def entries(self, kind: Kind) -> Entries:
        """Return the items or users, which the first call reads: a second for 100,000 of them.

        Raises:
            ConfigError, DataError: the file cannot be read, or has no ids.
        """
        if kind not in self._entries:
            file = self._files.get(kind)
            self._entries[kind] = Entries(iter(()) if file is None else _rows(file, kind))
        return self._entries[kind]


def _files_of(path: Path) -> dict[Kind, Path]:
    """Return the file of each kind. Raises ConfigError if there is none of items."""
    if path.is_file():
        return {"items": path}
    files: dict[Kind, Path] = {}
    for kind in KINDS:
        named = sorted(path.glob(f"{kind}.*")) if path.is_dir() else []
        if tables := [file for file in named if _is_called(file, kind)]:
            files[kind] = tables[0]
    if "items" not in files:
        raise ConfigError(
            f"CTR_CATALOGUE={path}: name a file of items, or a folder that holds items.csv, items.jsonl or "
            "items.parquet, with the columns id and title"
        )
    return files


def _is_called(file: Path, name: str) -> bool:
    """Return whether a file is a table of exactly this name; `items.backup.csv` is not one called items."""
    kind = table_kind(file)
    return kind is not None and file.name == name + kind.suffix + (".gz" if kind.gzipped else "")


def _rows(file: Path, kind: Kind) -> Iterator[tuple[str, str, dict[str, str], dict[str, list[str]]]]:
    """Yield the id, title, features and words of the rows that can be read. Raises what `Catalogue.entries` does."""
    has_ids, skipped, first = False, 0, ""
    for record in RecordFile(file):
        values = {name: value for name, value in record.values.items() if not _is_missing(value)}
        id_name = next((name for name in ID_NAMES[kind] if name in values), "")
        try:
            entry_id = stored_id(values.pop(id_name, None), id_name or "id")
        except EncodingError as error:
            skipped += 1
            first = first or f"{record.place} {record.problem or (error if id_name else 'has no id')}"
            continue
        has_ids = True
        title = next((_text(values.pop(name)) for name in TITLE_NAMES if name in values), "")
        words = {name: _words(value) for name, value in values.items()}
        features = {name: ", ".join(words[name])[:MAX_TEXT] for name in values}
        yield entry_id, title[:MAX_TEXT], features, words
    if skipped and not has_ids:
        raise DataError(f"{file}: no row can be read and has an id, which says whose title it is: {first}")
    if skipped:
        log.warning("catalogue_rows_skipped", file=str(file), rows=skipped, first=first)


def _is_missing(value: Any) -> bool:
    return value in (None, "", [], {}) or (isinstance(value, float) and math.isnan(value))


def _words(value: Any) -> list[str]:
    """Return the values that a cell holds: of a list each, of an object its keys, of `Drama|War` both."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return [value[:MAX_TEXT]]
    if isinstance(value, str) and "|" in value:
        value = value.split("|")
    if isinstance(value, list | tuple | dict):
        return [text for word in value if (text := _text(word)[:MAX_TEXT].strip())]
    return [_text(value)[:MAX_TEXT]]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)
