"""List the files that a path stands for: itself, those of a folder and its folders, or those that a pattern matches.

Folders named `key=value`, as Spark and Hive write them, add columns. Files are in the order of their names, in which
numbers count by their value: `hour=6` comes before `hour=12`, and `part-9` before `part-10`.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from app.errors import ConfigError, DataError
from app.features.tables.table_kind import FOREIGN, GZIP, KNOWN, TableKind, known_kind, table_kind

NULL_KEY = "__HIVE_DEFAULT_PARTITION__"
"""Spark and Hive write this for a missing value."""
LOGS = {"_delta_log": "Delta", ".hoodie": "Hudi"}
"""Folders that say which of the files beside them are valid."""
EXPORT = "export its rows as plain Parquet"
MAX_NAMED = 5

KeyValue = str | int | None


class TablePaths(NamedTuple):
    """Holds the files of one table."""

    files: tuple[Path, ...]
    keys: dict[Path, dict[str, KeyValue]]
    """Maps a file to the columns that the names of its folders add: whole numbers where all of them are, else text."""
    passed_over: tuple[str, ...] = ()
    """Names the files of the folder that are no tables."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a user should know of what was found."""
        notes = []
        folders = {file.parent for file in self.files}
        if len(folders) > 1 and not all(self.keys.values()):  # which may be more than was meant
            notes.append(f"reads {len(self.files):,} files of {len(folders):,} folders")
        if self.passed_over:
            more = ", ..." if len(self.passed_over) > MAX_NAMED else ""
            notes.append(f"passed over, as no tables by their names: {', '.join(self.passed_over[:MAX_NAMED])}{more}")
        return tuple(notes)


def table_paths(path: Path) -> tuple[TablePaths, TableKind]:
    """Return the files of a table, which are of one kind, and their kind.

    Raises:
        ConfigError: the kind of file is not known.
        DataError: there is no such file, or it is empty or cannot be read, or the files are of several kinds.
    """
    paths = data_files(path, lambda file: table_kind(file) is not None)
    kinds = {known_kind(file) for file in paths.files}
    names = sorted({kind.suffix for kind in kinds})
    if len({(kind.format, kind.separator) for kind in kinds}) > 1:
        raise DataError(f"{path}: has files of several kinds, {' and '.join(names)}; name those of one by a pattern")
    return paths, next(iter(kinds))


def data_files(path: Path, is_known: Callable[[Path], bool] = lambda _: True) -> TablePaths:
    """Return the file, the files of a folder and its folders, or those that a pattern (`day_*.tsv`) matches.

    Args:
        is_known: tells whether a file of a folder is data. Files and folders whose names begin with `.` or `_` never
            are, nor are empty files.

    Raises:
        ConfigError: a folder holds data of a kind that is not read.
        DataError: there are no files, or the one that is named is empty, or a folder cannot be read.
    """
    try:
        if path.is_dir():
            inside = _walk(path)
            known = [file for file in inside if is_known(file)]
            _refuse_foreign(path, inside, known)
            files = [file for file in known if file.stat().st_size]
            if not files:
                raise DataError(f"{path}: no file in this folder has data that can be read; {KNOWN}")
            others = (str(file.relative_to(path)) for file in inside if not is_known(file))
            return TablePaths(tuple(files), _keys(path, files), tuple(others))
        if not path.exists() and glob.has_magic(str(path)):
            matches = (Path(file) for file in glob.glob(str(path), recursive=True))
            files = sorted((file for file in matches if file.is_file() and file.stat().st_size), key=natural_order)
            if not files:
                raise DataError(f"{path}: no file matches")
            return TablePaths(tuple(files), _keys(_plain_part(path), files))
        if not path.is_file():
            raise DataError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: is empty")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}: {error.filename}") from error
    return TablePaths((path,), _keys(path.parent, [path]))


def natural_order(path: Path) -> list[list[str | int]]:
    """Return what sorts paths by their names, numbers in them by their value."""
    return [[int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)] for name in path.parts]


def _walk(root: Path) -> list[Path]:
    """Return the files of a folder and of its folders, in order. Raises OSError, and DataError for broken links."""
    files: list[Path] = []
    seen: set[str] = set()

    def stop(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(root, onerror=stop, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(set(folders) & LOGS.keys()):
            raise ConfigError(f"{folder}: is a {LOGS[name]} table, whose files are not all valid: {EXPORT}")
        folders[:] = [name for name in folders if name[0] not in "._"]
        for file in (Path(folder, name) for name in names if name[0] not in "._"):
            if file.is_symlink() and not file.exists():
                raise DataError(f"{file}: is a link to a file that is not there")
            if file.is_file():
                files.append(file)
    return sorted(files, key=natural_order)


def _refuse_foreign(path: Path, inside: list[Path], known: list[Path]) -> None:
    for file in inside:
        foreign = FOREIGN.get(Path(file.name.lower().removesuffix(GZIP)).suffix)
        if foreign and file not in known and "no table" not in foreign:
            others = f"; or name the others by a pattern, '{path}/*{known[0].suffix}'" if known else ""
            raise ConfigError(f"{file}: is {foreign}{others}")


def _plain_part(pattern: Path) -> Path:
    """Return the folder that a pattern begins with."""
    parts = list(pattern.parts)
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _keys(root: Path, files: list[Path]) -> dict[Path, dict[str, KeyValue]]:
    above: list[str] = []
    for part in reversed(root.absolute().parts):
        if not _is_key(part):
            break
        above.insert(0, part)
    texts = {file: _pairs([*above, *file.relative_to(root).parts[:-1]]) for file in files}
    shapes = {tuple(pairs) for pairs in texts.values()}
    if len(shapes) > 1:
        one, other = sorted(shapes)[:2]
        raise DataError(
            f"{root}: its folders have other keys: {', '.join(one) or 'none'} and {', '.join(other)}; name those of one"
        )
    names = next(iter(shapes), ())
    whole = {
        name
        for name in names
        if all(pairs[name] is None or re.fullmatch(r"-?[0-9]{1,18}", pairs[name] or "") for pairs in texts.values())
    }
    return {
        file: {name: int(text) if name in whole and text is not None else text for name, text in pairs.items()}
        for file, pairs in texts.items()
    }


def _is_key(part: str) -> bool:
    name, equals, _ = part.partition("=")
    return bool(equals) and bool(name)


def _pairs(parts: list[str]) -> dict[str, str | None]:
    pairs = {}
    for part in filter(_is_key, parts):
        name, _, value = part.partition("=")
        pairs[unquote(name)] = None if value == NULL_KEY else unquote(value)
    return pairs
