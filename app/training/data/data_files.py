"""List the files that a path stands for: itself, those of a folder, or those that a pattern matches."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path

from app.errors import DataError


def data_files(path: Path, is_known: Callable[[Path], bool] = lambda _: True) -> tuple[Path, ...]:
    """Return the file, the files of a folder or those that a pattern (`day_*.tsv`) matches, sorted by name.

    Args:
        is_known: tells whether a file of a folder is data. Files whose names begin with `.` or `_` never are, nor are
            empty files.

    Raises:
        DataError: there are none, or the file that is named is empty.
    """
    if path.is_dir():
        inside = (file for file in path.iterdir() if file.is_file() and file.name[0] not in "._" and is_known(file))
        files = [file for file in sorted(inside) if file.stat().st_size]
        if not files:
            raise DataError(f"{path}: no file in this folder has data that can be read")
        return tuple(files)
    if not path.exists() and glob.has_magic(str(path)):
        files = [file for file in map(Path, sorted(glob.glob(str(path)))) if file.is_file() and file.stat().st_size]
        if not files:
            raise DataError(f"{path}: no file matches")
        return tuple(files)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
    return (path,)
