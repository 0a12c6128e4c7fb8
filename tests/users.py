"""Permissions in tests: those of an ordinary user where tests run as root, and published versions to damage."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.runtime.read_only import remove_folder

NOBODY = 65534


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Give up the rights of root within the block."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def allow_changes(folder: Path) -> None:
    """Let a published version be damaged."""
    for path in (folder, *folder.iterdir()):
        path.chmod(path.stat().st_mode | 0o200)


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    """A folder that an ordinary user may enter and write to; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="ctr-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        if not os.geteuid():
            os.chown(folder, NOBODY, NOBODY)
        yield folder
        for child in folder.iterdir():
            remove_folder(child)
