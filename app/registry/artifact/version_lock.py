"""Locks on versions: a process that has loaded one holds a shared lock on its manifest, so that it is not pruned.

The kernel releases a lock when its process ends, so a killed service keeps nothing. On a file system that knows no
locks loading is never refused, and nothing is pruned.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

from app.errors import ArtifactError
from app.runtime import file_lock


class VersionLock:
    """A shared lock that keeps a version from being pruned for as long as this object lives."""

    def __init__(self, manifest: Path) -> None:
        """Take the lock, if there is a manifest. Raises ArtifactError("file") if the version is being pruned."""
        try:
            descriptor = _open(manifest)
        except OSError:
            return  # reading the manifest will say what is wrong with it
        weakref.finalize(self, os.close, descriptor)
        with contextlib.suppress(OSError):  # the file system knows no locks
            if not file_lock.try_lock(descriptor, shared=True):
                raise ArtifactError("file", "the version is being removed: it was pruned")


@contextlib.contextmanager
def lock_if_unused(manifest: Path) -> Iterator[bool]:
    """Yield True if no process has the version loaded; then none can load it within the block."""
    try:
        descriptor = _open(manifest)
    except OSError:
        yield not manifest.exists()  # a folder without a manifest was never loaded from
        return
    try:
        try:
            unused = file_lock.try_lock(descriptor)
        except OSError:
            unused = False
        yield unused
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
