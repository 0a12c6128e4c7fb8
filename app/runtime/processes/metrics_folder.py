"""The folder in which the workers of a service share their metrics (PROMETHEUS_MULTIPROC_DIR)."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.runtime.file_lock import try_lock

PREFIX = "ctr-workers-"


@contextlib.contextmanager
def metrics_folder() -> Iterator[Path]:
    """Yield a new folder, removed at the end of the block, after removing those whose processes were killed.

    A folder in use is locked: a killed process cannot remove its folder, but the kernel releases the lock.
    """
    _sweep()
    folder, descriptor = _new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _new_folder() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with contextlib.suppress(FileNotFoundError):  # another start may sweep it before it is locked
            descriptor = os.open(folder, os.O_RDONLY)
            if try_lock(descriptor) and folder.exists():
                return folder, descriptor
            os.close(descriptor)


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # of another user, or removed by another start
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if try_lock(descriptor):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
