"""Who uses a version: whoever has loaded one holds a shared lock on its manifest, and a pruner leaves what is held.

The kernel forgets a lock with the process that held it, so a killed service keeps nothing. Where the file system knows
no locks nobody is stopped from loading, and nothing is pruned.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

from app.errors import ArtifactError


class Hold:
    """Keeps a version from being pruned for as long as this object lives."""

    def __init__(self, manifest: Path) -> None:
        """Raises ArtifactError("file") where the version is being removed at this moment."""
        try:
            descriptor = _opened(manifest)
        except OSError:
            return  # whoever reads it will say what is wrong with it
        weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArtifactError("file", "the version is being removed: it was pruned") from error
        except OSError:
            return


@contextlib.contextmanager
def unused(manifest: Path) -> Iterator[bool]:
    """True where nobody has the version loaded; then nobody can load it within the block."""
    try:
        descriptor = _opened(manifest)
    except OSError:
        yield not manifest.exists()  # a folder without a manifest was never loaded from
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:
        free = False
    try:
        yield free
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
