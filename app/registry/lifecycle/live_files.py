"""`LiveFiles` notices that the files of a live version are no longer those that were loaded.

What is live is a copy in memory, which serves on. But a worker that starts now could not load the version. A look is a
`stat` a file; only a file of which that changed is read, once for each change.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import structlog

from app.errors import ArtifactError
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.manifest import MANIFEST, FileProof
from app.registry.artifact.version_file import verify_file
from app.registry.store.model_store import ModelStore
from app.runtime.thread_pacer import in_background

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 5.0
FileState = tuple[int, int, int]
"""Inode, size and time of the last change in nanoseconds."""


class LiveFiles:
    """Compares the files of live versions with their manifests. Blocking; run it in a worker thread."""

    def __init__(self, store: ModelStore, every_s: float = LOOK_EVERY_S) -> None:
        self.damages: dict[int, str] = {}
        """What is wrong with the files of which live version, as of the last look."""
        self._store, self._every_s = store, every_s
        self._next_look = 0.0
        self._seen: dict[Path, tuple[FileState, str]] = {}
        """The state in which a file was read, and what was wrong with it then."""

    def note(self, version: int) -> None:
        """Note the files of a version that is about to be loaded, which proves that they are what they should be."""
        for path in _files_of(self._store.path(version)):
            if state := _state_of(path):
                self._seen[path] = state, ""

    def look(self, live: Iterable[Artifact]) -> None:
        """Look at the files, unless the last look was lately; log what is damaged since, and what was mended."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + self._every_s
        found = {artifact.version: self._damage_of(artifact) for artifact in live}
        damages = {version: damage for version, damage in found.items() if damage}
        for version, damage in damages.items():
            if damage != self.damages.get(version):
                log.error("model_files_damaged", model=self._store.name, version=version, reason=damage,
                          effect="what was loaded serves on; a worker that starts cannot load it")  # fmt: skip
        for version in self.damages.keys() & (found.keys() - damages.keys()):
            log.info("model_files_mended", model=self._store.name, version=version)
        self.damages = damages
        folders = {self._store.path(version) for version in found}
        self._seen = {path: seen for path, seen in self._seen.items() if path.parent in folders}

    def _damage_of(self, artifact: Artifact) -> str:
        folder = self._store.path(artifact.version)
        damages = (self._damage_of_file(folder / name, proof) for name, proof in artifact.manifest.files.items())
        damage = next(filter(None, damages), "")
        # A manifest that is another one makes another version, which is loaded or refused as such.
        return damage or ("" if _state_of(folder / MANIFEST) else f"{MANIFEST} is not there")

    def _damage_of_file(self, path: Path, proof: FileProof) -> str:
        state = _state_of(path)
        if state is None:
            self._seen.pop(path, None)
            return f"{path.name} is not there"
        seen = self._seen.get(path)
        if seen is None or seen[0] != state:
            seen = self._seen[path] = state, _read(path, proof)
        return seen[1]


def _files_of(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # loading the version will say what is wrong
        return []


def _state_of(path: Path) -> FileState | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path, proof: FileProof) -> str:
    """Return what is wrong with a file's content."""
    try:
        with in_background():
            verify_file(path, proof)
    except ArtifactError as error:
        return str(error)
    return ""
