"""Files that survive a power failure: brought to the disk, and replaced in one step; and read without waiting.

All functions raise OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path


def fsync_path(path: Path) -> None:
    """Bring a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Read at most so many bytes of a file; a FIFO or a device in its place is refused and not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file.read(max_bytes)


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
