"""Locks on one model's folder in the store, and its I/O errors as ArtifactError."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from app.errors import ArtifactError
from app.runtime import file_lock

LOCK, ACTION_LOCK = ".lock", ".action.lock"


@contextlib.contextmanager
def store_lock(folder: Path) -> Iterator[None]:
    """Let publishers take turns; readers never wait. Raises ArtifactError("file") if the folder cannot be written."""
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock.locked(folder / LOCK):
            yield


@contextlib.contextmanager
def action_lock(folder: Path) -> Iterator[None]:
    """Admit one action that takes long at a time, over all processes, without waiting.

    Raises:
        ArtifactError: `busy` if another is at work, `file` if the folder cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        with writing_to(folder):
            try:
                stack.enter_context(file_lock.locked(folder / ACTION_LOCK, blocking=False))
            except BlockingIOError as error:
                raise ArtifactError("busy", "another action is at work on this model") from error
        yield


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn an OSError of the block into ArtifactError("file")."""
    try:
        yield
    except OSError as error:
        raise ArtifactError("file", f"cannot write to {folder}: {error.strerror or error}") from error
