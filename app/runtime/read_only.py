"""Folders whose files are not to be changed: made read-only, opened for a moment, and removed all the same.

Permissions stop accidents, not intent: root, and the owner who gives himself the right, may still write. Mounts of
object stores and some network file systems have no permissions to change; there everything goes on without them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

READABLE_FILE, READABLE_FOLDER, WRITABLE_FOLDER = 0o444, 0o555, 0o755


def make_read_only(folder: Path) -> None:
    """Let nobody write to a folder and its files, and everybody read them. Raises OSError if it cannot be read."""
    for path in folder.iterdir():
        if path.is_file():
            _set_mode(path, READABLE_FILE)
    _set_mode(folder, READABLE_FOLDER)


@contextlib.contextmanager
def opened_for_writing(folder: Path) -> Iterator[None]:
    """Let its owner write to a folder within the block; one that was not read-only stays as it was.

    The caller sees to it that nobody else does the same at that time. Raises OSError if there is no such folder.
    """
    was_read_only = not folder.stat().st_mode & 0o200
    if was_read_only:
        _set_mode(folder, WRITABLE_FOLDER)
    try:
        yield
    finally:
        if was_read_only:
            _set_mode(folder, READABLE_FOLDER)


def remove_folder(folder: Path) -> None:
    """Remove a folder, read-only or not, as far as that can be done."""
    _set_mode(folder, WRITABLE_FOLDER)
    shutil.rmtree(folder, ignore_errors=True)


def _set_mode(path: Path, mode: int) -> None:
    with contextlib.suppress(OSError):
        if not path.is_symlink():
            os.chmod(path, mode)
