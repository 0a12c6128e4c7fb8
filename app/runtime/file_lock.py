"""Locks that processes hold on files (`flock`).

A lock belongs to the open file, not to the process: the kernel releases it once every descriptor of that open file is
closed, in children that inherited one too, however their processes end. All functions raise OSError where the file
system knows no locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def lock(descriptor: int, *, shared: bool = False) -> None:
    """Lock an open file, after waiting for those who hold a lock that excludes this one."""
    fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file without waiting; return False if somebody holds a lock that excludes this one."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Release the lock on an open file."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextlib.contextmanager
def locked(path: Path, *, blocking: bool = True, mode: int = 0o666) -> Iterator[int]:
    """Hold the exclusive lock on a file, which is created where it does not exist and never truncated.

    Args:
        blocking: wait for whoever holds the lock; otherwise raise BlockingIOError if somebody does.
        mode: permissions of a file that is created, less the umask.

    Yields:
        The open file's descriptor, for reading and writing.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        if blocking:
            lock(descriptor)
        elif not try_lock(descriptor):
            raise BlockingIOError(f"{path} is locked by another process")
        yield descriptor
    finally:
        os.close(descriptor)
