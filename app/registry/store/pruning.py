"""Old versions make room for new ones, except those that somebody may still need."""

from __future__ import annotations

import contextlib
import os
import shutil

from app.errors import ArtifactError
from app.registry.artifact.manifest import MANIFEST
from app.registry.artifact.version_lock import lock_if_unused
from app.registry.store.model_store import ModelStore

KEPT_FOR_ROLLBACK = 3


def prune(store: ModelStore, keep: int) -> list[int]:
    """Remove all but the newest `keep` versions; returns the numbers of those removed.

    Never one that has a label, was among the last three to be stable, or is loaded by a process of this machine.
    Versions in use by machines that share the folder over a network are seen where its locks are shared too.

    Raises ArtifactError where the store cannot be written to.
    """
    with store.lock():
        try:
            labelled = set(store.pointer().versions_by_label().values())
        except ArtifactError:
            return []  # what is labelled cannot be known
        once_stable = list(dict.fromkeys(reversed(store.history())))[:KEPT_FOR_ROLLBACK]
        old = store.versions()[:-keep]
        return [version for version in old if version not in {*labelled, *once_stable} and _remove(store, version)]


def _remove(store: ModelStore, version: int) -> bool:
    folder = store.path(version)
    # Out of sight in one step: a half-removed version must not look like a damaged one.
    aside = store.folder / f".tmp-pruned-{version}"
    with lock_if_unused(folder / MANIFEST) as free:
        if not free:
            return False
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(aside)
        os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)
    return True
