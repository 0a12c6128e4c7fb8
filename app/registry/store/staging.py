"""Folders on the store's own file system in which versions are built before they get a number."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from app.errors import ArtifactError
from app.registry.artifact.manifest import MANIFEST, PROGRAM, TABLES
from app.registry.artifact.manifest_file import verify_files
from app.registry.store.store_lock import store_lock
from app.runtime import file_lock
from app.runtime.durable_file import fsync_path
from app.runtime.read_only import make_read_only, remove_folder

PREFIX = ".tmp-"
STALE_AFTER_S = 24 * 3600
"""Age of a leftover on a file system that knows no locks, which would say that its publisher is gone."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
REPORTS = ("report.html", "report.json")
"""Copied with a version that has them."""


@contextlib.contextmanager
def staging_folder(store_folder: Path) -> Iterator[Path]:
    """Yield an empty folder in the store; it is removed afterwards unless the version in it was published.

    What killed publishers left is removed too: one that is alive holds a lock on its folder.

    Raises ArtifactError("file").
    """
    with store_lock(store_folder):  # in which no other publisher is between making its folder and locking it
        _sweep(store_folder)
        staged = Path(tempfile.mkdtemp(prefix=PREFIX, dir=store_folder))
        descriptor = os.open(staged, _FOLDER)
        with contextlib.suppress(OSError):  # the file system knows no locks
            file_lock.lock(descriptor)
    try:
        yield staged
    finally:
        remove_folder(staged)
        os.close(descriptor)


def copy_version(source: Path, staged: Path) -> None:
    """Copy a version's files into a staging folder, and prove that the copy has the bytes its manifest names.

    Whether the version is any good is left to the gate. Raises ArtifactError.
    """
    reports = [file for file in REPORTS if (source / file).is_file()]
    for file in (PROGRAM, TABLES, MANIFEST, *reports):
        try:
            shutil.copyfile(source / file, staged / file, follow_symlinks=False)
        except OSError as error:
            raise ArtifactError("file", f"{source / file} cannot be copied: {error.strerror or error}") from error
    verify_files(staged)


def rename_durably(staged: Path, target: Path) -> None:
    """Give a staging folder its place in the store, read-only, after everything in it is on disk. Raises OSError."""
    make_read_only(staged)  # and readable: mkdtemp made it private, and the service may run as another user
    for file in staged.iterdir():
        fsync_path(file)
    fsync_path(staged)
    os.rename(staged, target)
    fsync_path(target.parent)


def remove_version(folder: Path, reason: str) -> None:
    """Remove a version's folder: out of sight in one step, so that a half-removed one does not look damaged.

    Args:
        reason: part of the name that the folder has until it is gone.
    """
    aside = folder.parent / f"{PREFIX}{reason}-{folder.name}"
    remove_folder(aside)
    os.rename(folder, aside)
    remove_folder(aside)


def _sweep(store_folder: Path) -> None:
    """Remove what no living publisher is at work in. The caller holds the lock under which files are written here."""
    for entry in store_folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if not entry.is_dir():
                entry.unlink()
            elif _is_abandoned(entry):
                remove_folder(entry)


def _is_abandoned(folder: Path) -> bool:
    descriptor = os.open(folder, _FOLDER)
    try:
        return file_lock.try_lock(descriptor)
    except OSError:
        return time.time() - os.fstat(descriptor).st_mtime > STALE_AFTER_S
    finally:
        os.close(descriptor)
