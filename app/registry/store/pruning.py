"""Remove old versions to make room for new ones, except those that may still be needed."""

from __future__ import annotations

from app.errors import ArtifactError
from app.registry.artifact.manifest import MANIFEST
from app.registry.artifact.version_lock import lock_if_unused
from app.registry.store.model_store import ModelStore
from app.registry.store.staging import remove_version

KEPT_FOR_ROLLBACK = 3


def prune(store: ModelStore, keep: int) -> list[int]:
    """Remove all but the newest `keep` versions and return the numbers of those removed.

    A version stays if it has a label, was among the last three to be stable, or is loaded by a process of this machine.
    Versions in use by machines that share the folder over a network are seen if the file system shares its locks.

    Raises:
        ArtifactError: the store cannot be written to.
    """
    with store.lock():
        try:
            labelled = set(store.pointer().versions_by_label().values())
        except ArtifactError:
            return []  # which versions have a label cannot be known
        once_stable = list(dict.fromkeys(reversed(store.history())))[:KEPT_FOR_ROLLBACK]
        protected = {*labelled, *once_stable}
        old = store.versions()[:-keep]
        return [version for version in old if version not in protected and _remove_unused(store, version)]


def _remove_unused(store: ModelStore, version: int) -> bool:
    with lock_if_unused(store.path(version) / MANIFEST) as unused:
        if unused:
            remove_version(store.path(version), "pruned")
        return unused
