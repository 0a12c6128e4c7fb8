"""Files that survive a power failure: brought to the disk, and replaced in one step. All functions raise OSError."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def fsync_path(path: Path) -> None:
    """Bring a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file, so that a reader sees the old content or the new; the folder is left for the caller to sync."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".tmp-{path.stem.strip('.')}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:  # a full disk must not be left fuller
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
