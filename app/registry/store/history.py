"""`.history.json`: the versions that were stable, the latest last. A rollback goes back along it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from app.registry.store.pointer import VersionNumber
from app.runtime.durable_file import read_regular_file, replace_file

HISTORY = ".history.json"
MAX_HISTORY = 100
MAX_HISTORY_BYTES = 1 << 16


class StableHistory:
    """The history file of one model. The caller of `write` holds the store's lock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HISTORY

    def read(self) -> list[int]:
        """Return the versions in the order in which they became stable; empty if the file is missing or damaged."""
        try:
            return msgspec.json.decode(read_regular_file(self._path, MAX_HISTORY_BYTES), type=list[VersionNumber])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return []  # a convenience: whatever is wrong with it must not stop a promotion

    def write(self, versions: list[int], stable: int | None) -> None:
        """Replace the file by these versions and `stable` after them, cut to the newest MAX_HISTORY."""
        if stable is not None and versions[-1:] != [stable]:
            versions = [*versions, stable]
        replace_file(self._path, msgspec.json.encode(versions[-MAX_HISTORY:]))
