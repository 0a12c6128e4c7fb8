"""The model store: immutable numbered versions in a folder, and one pointer to what should be live.

    <root>/<name>/<version>/          model.pt, tables.safetensors, manifest.json
    <root>/<name>/serving.json        {"stable": 7, "canary": {"version": 8, "share": 0.05}, "shadow": 9}
    <root>/<name>/.history.json       [3, 7]   what was stable, the latest last: where a rollback goes back to

A version is built aside in `.tmp-*`, fsynced and renamed; the pointer is replaced. A killed publisher leaves a `.tmp-*`
folder that nothing reads and a later publisher removes.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from app.errors import ArtifactError, ConfigError
from app.registry.artifact.manifest import Manifest
from app.registry.artifact.manifest_file import read_manifest, read_manifest_bytes, write_manifest
from app.registry.artifact.signing import MANIFEST_CONTEXT, SIGNATURE, Signer, Trust
from app.registry.gate.gate_report import GateCheck, recorded_refusal, write_refusal
from app.registry.store.history import StableHistory
from app.registry.store.pointer import CanaryPointer, Pointer, decode_pointer
from app.registry.store.pointer_file import PointerFile, authorize
from app.registry.store.staging import copy_version, remove_version, rename_durably, staging_folder
from app.registry.store.store_lock import action_lock, store_lock

if TYPE_CHECKING:
    import torch

    from app.registry.artifact.artifact import Artifact
    from app.registry.artifact.load import ArtifactLoader
    from app.settings import Settings

VERSION = re.compile(r"[1-9][0-9]{0,14}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class ModelStore:
    """One model's folder in the store."""

    def __init__(self, root: Path, name: str, *, signer: Signer | None = None, trust: Trust | None = None) -> None:
        """
        Args:
            signer: signs what is published and every change of the pointer.
            trust: refuses what was not signed.

        Raises:
            ConfigError: the name cannot be that of a folder.
        """
        if not NAME.fullmatch(name):
            raise ConfigError(f"model name {name!r}: use letters, digits, '_', '-' and '.'")
        self.name = name
        self.folder = root / name
        self.trust = trust
        self._signer = signer
        self._history = StableHistory(self.folder)
        self._pointer_file = PointerFile(self.folder, name, self._history, signer)

    @classmethod
    def open(cls, root: Path, name: str, signing_key: Path | None, trusted_keys: Sequence[Path]) -> ModelStore:
        """Open a store with the keys of these PEM files. Raises ConfigError if one cannot be read."""
        signer = Signer.read(signing_key) if signing_key else None
        return cls(root, name, signer=signer, trust=Trust.read(trusted_keys) if trusted_keys else None)

    @classmethod
    def from_settings(cls, settings: Settings) -> ModelStore:
        """Open the store that the settings name, with their keys. Raises ConfigError."""
        return cls.open(settings.model_store, settings.model, settings.signing_key, settings.trusted_keys)

    # Versions

    def versions(self) -> list[int]:
        """Return the numbers of the published versions, ascending."""
        try:
            entries = [entry.name for entry in os.scandir(self.folder)]
        except OSError:
            return []
        return sorted(int(entry) for entry in entries if VERSION.fullmatch(entry))

    def path(self, version: int) -> Path:
        """Return the version's folder, whether it exists or not."""
        return self.folder / str(version)

    def manifest(self, version: int) -> Manifest:
        """Read a version's manifest, and check its signature if the store trusts keys. Raises ArtifactError."""
        return read_manifest(self.path(version), self.trust)

    def refusal(self, version: int) -> GateCheck | None:
        """Return why a version was refused; None if it was not, or the gate has judged it again since.

        None for a version whose manifest cannot be read: loading it says what is wrong.
        """
        with contextlib.suppress(ArtifactError):
            return recorded_refusal(self.path(version), read_manifest_bytes(self.path(version)))
        return None

    def load(self, version: int, device: torch.device | str = "cpu") -> Artifact:
        """Load a version that was not refused. Raises ArtifactError, `gate` if it was."""
        raw = read_manifest_bytes(self.path(version))
        if self.trust is not None:  # ahead of everything, the gate's report included
            self.trust.check_manifest(self.path(version), raw)
        refusal = recorded_refusal(self.path(version), raw)
        if refusal is not None:
            raise ArtifactError("gate", f"it was refused ({refusal.reason}): {refusal.detail}")
        return self._loader.load(self.path(version), device, version=version, name=self.name, trust=self.trust)

    @cached_property
    def _loader(self) -> ArtifactLoader:
        # Imports torch, which takes longer than all that a command does that loads no version.
        from app.registry.artifact.load import ArtifactLoader

        return ArtifactLoader()

    # Publishing

    def staging(self) -> contextlib.AbstractContextManager[Path]:
        """Open an empty folder on the store's file system to build a version in; it is removed afterwards.

        Raises ArtifactError("file") if the store cannot be written to.
        """
        return staging_folder(self.folder)

    def publish(self, staged: Path) -> int:
        """Give a version that `app.registry.artifact.export.write` built in a `staging()` folder its number and place.

        Returns:
            The number.

        Raises:
            ArtifactError: the folder holds no whole version, or the store cannot be written to.
        """
        manifest = read_manifest(staged)
        with self.lock():
            version = (self.versions() or [0])[-1] + 1
            raw = write_manifest(staged, msgspec.structs.replace(manifest, name=self.name, version=version))
            (staged / SIGNATURE).unlink(missing_ok=True)
            if self._signer is not None:
                (staged / SIGNATURE).write_bytes(self._signer.sign(MANIFEST_CONTEXT, raw))
            rename_durably(staged, self.path(version))
        return version

    def publish_copy(self, source: Path) -> int:
        """Publish a copy of a version folder that lies elsewhere and stays as it is. Raises ArtifactError."""
        read_manifest(source)  # before anything is written
        with self.staging() as staged:
            copy_version(source, staged)
            return self.publish(staged)

    def discard_unlabelled(self, version: int) -> None:
        """Remove a version that no label points at; leave one that has a label. Raises ArtifactError, OSError."""
        with self.lock():
            if version not in self.pointer().versions_by_label().values():
                remove_version(self.path(version), "withdrawn")

    # The pointer

    def pointer_bytes(self) -> bytes | None:
        """Return the content of `serving.json`, None if there is none. Raises ArtifactError if it cannot be read."""
        return self._pointer_file.read_bytes()

    def pointer(self) -> Pointer:
        """Read the pointer; an empty one if there is none. Raises ArtifactError if it is damaged."""
        return decode_pointer(self.pointer_bytes())

    def history(self) -> list[int]:
        """Return the versions that were stable, the latest last; empty if that is not known."""
        return self._history.read()

    def authorize(self, pointer: Pointer) -> None:
        """Remember what a signed pointer allows; called for each pointer that is read to be followed."""
        if self.trust is not None:
            authorize(self.trust, self.name, pointer)

    def update_pointer(self, **labels: object) -> Pointer:
        """Change some labels and keep the others: `update_pointer(stable=7)`. Raises ArtifactError."""
        with self.lock():
            return self._pointer_file.write(msgspec.structs.replace(self._pointer_file.read_or_new(), **labels))

    def promote(self, version: int, label: str = "stable", share: float = 0.05) -> Pointer:
        """Give a version a label. One that becomes stable is no longer a canary or a shadow. Raises ArtifactError."""
        with self.lock():
            pointer = self._pointer_file.read_or_new()
            if label == "canary":
                pointer = msgspec.structs.replace(pointer, canary=CanaryPointer(version, share))
            else:
                pointer = msgspec.structs.replace(pointer, **{label: version})
            if label == "stable" and pointer.canary is not None and pointer.canary.version == version:
                pointer = msgspec.structs.replace(pointer, canary=None)
            if label == "stable" and pointer.shadow == version:
                pointer = msgspec.structs.replace(pointer, shadow=None)
            return self._pointer_file.write(pointer)

    def roll_back(self, version: int) -> Pointer:
        """Make an earlier version stable and forget those that were stable since. Raises ArtifactError."""
        with self.lock():
            history = self.history()
            history = history[: history.index(version)] if version in history else history[:-1]
            pointer = msgspec.structs.replace(self._pointer_file.read_or_new(), stable=version)
            return self._pointer_file.write(pointer, history)

    def rollback_candidates(self, before: int | None = None) -> list[int]:
        """Return the published versions to return to: those that were stable, the latest first, then lower numbers.

        Args:
            before: the version to get away from; None if the pointer is lost.
        """
        published = self.versions()
        once_stable = [version for version in reversed(self.history()) if version in published]
        lower = [version for version in reversed(published) if before is None or version < before]
        return [version for version in dict.fromkeys(once_stable + lower) if version != before]

    def withdraw(self, version: int, refusal: GateCheck) -> list[str]:
        """Refuse a version, and take away the labels it has: the canary, the shadow, never stable.

        Returns:
            Those labels; none if another process has taken them away.

        Raises:
            ArtifactError: `stable` if the version is stable, `file` if the store cannot be written to.
        """
        with self.lock():
            pointer = self.pointer()
            if pointer.stable == version:
                raise ArtifactError("stable", f"version {version} is stable: roll back first")
            labels = pointer.labels_of(version)
            manifest = read_manifest_bytes(self.path(version))
            if labels or recorded_refusal(self.path(version), manifest) is None:
                write_refusal(self.path(version), version, manifest, refusal, pointer.stable)
            if labels:
                self._pointer_file.write(msgspec.structs.replace(pointer, **dict.fromkeys(labels)))
            return labels

    # Locks

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the store while it is changed; readers never wait. Raises ArtifactError("file")."""
        return store_lock(self.folder)

    def exclusive_action(self) -> contextlib.AbstractContextManager[None]:
        """Hold the store for an action that takes long: one at a time, over all processes, without waiting.

        Raises ArtifactError, `busy` if another is at work, `file` if the store cannot be written to.
        """
        return action_lock(self.folder)
