"""Read from the model store which version should be live under which label. Blocking; run it in a worker thread."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field

from app.errors import ArtifactError
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.manifest_file import read_manifest_bytes
from app.registry.lifecycle.snapshot import LABELS, Label
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import POINTER, decode_pointer


@dataclass(frozen=True)
class TargetVersion:
    """A version that the pointer names; its manifest tells it from others of its number."""

    version: int
    manifest_sha256: str | None
    """The hash of the manifest; None if that cannot be read."""

    def matches(self, artifact: Artifact | None) -> bool:
        """Return True if the artifact is this version; it stays so if the version's folder vanishes."""
        if artifact is None or artifact.version != self.version:
            return False
        return self.manifest_sha256 in (None, artifact.manifest_sha256)


@dataclass(frozen=True)
class StoreState:
    """The pointer and the versions that it named when the store was read."""

    content: bytes | None
    """The bytes of the pointer; None if there is none or it cannot be read."""
    targets: dict[Label, TargetVersion] = field(default_factory=dict)
    canary_share: float = 0.0
    """Share of users in [0, 1] that the canary answers."""
    error: ArtifactError | None = None
    """Why there is nothing to follow: `missing`, or `pointer` if it is damaged."""


def read_store_state(store: ModelStore) -> StoreState:
    """Read the pointer and the manifests of the versions it names."""
    content = None
    try:
        content = store.pointer_bytes()
        pointer = decode_pointer(content)
        store.authorize(pointer)
        if pointer.stable is None:
            state = "is not there" if content is None else "names no stable version"
            raise ArtifactError("missing", f"{POINTER} {state}: `ctr promote VERSION` or `ctr train --publish`")
    except ArtifactError as error:
        return StoreState(content, error=error)
    versions = pointer.versions_by_label()
    targets = {label: target_version(store, versions[label]) for label in LABELS if label in versions}
    return StoreState(content, targets, pointer.canary.share if pointer.canary else 0.0)


def target_version(store: ModelStore, version: int) -> TargetVersion:
    """Identify a version by its manifest as it is now."""
    with contextlib.suppress(ArtifactError):  # loading the version will say what is wrong
        return TargetVersion(version, hashlib.sha256(read_manifest_bytes(store.path(version))).hexdigest())
    return TargetVersion(version, None)
