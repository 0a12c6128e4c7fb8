"""One reading of the model store: what the pointer asks for, by label. Blocking; run in a worker thread."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field

from app.errors import ArtifactError
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import read_manifest_bytes
from app.registry.lifecycle.snapshot import LABELS, Label
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import POINTER, decode_pointer


@dataclass(frozen=True)
class TargetVersion:
    """A version the pointer names, told from others of its number by its manifest."""

    version: int
    manifest_sha256: str | None
    """None where the manifest cannot be read."""

    def matches(self, artifact: Artifact | None) -> bool:
        """A folder that vanished does not unmake what was loaded from it."""
        if artifact is None or artifact.version != self.version:
            return False
        return self.manifest_sha256 in (None, artifact.manifest_sha256)


@dataclass(frozen=True)
class StoreState:
    content: bytes | None
    """Of the pointer; None where it is not there or cannot be read."""
    targets: dict[Label, TargetVersion] = field(default_factory=dict)
    canary_share: float = 0.0
    error: ArtifactError | None = None
    """Why there is nothing to follow: `missing`, or `pointer` where it is damaged."""


def read_store_state(store: ModelStore) -> StoreState:
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
    wanted = {label: target_version(store, versions[label]) for label in LABELS if label in versions}
    return StoreState(content, wanted, pointer.canary.share if pointer.canary else 0.0)


def target_version(store: ModelStore, version: int) -> TargetVersion:
    with contextlib.suppress(ArtifactError):  # loading it will say what is wrong
        return TargetVersion(version, hashlib.sha256(read_manifest_bytes(store.path(version))).hexdigest())
    return TargetVersion(version, None)
