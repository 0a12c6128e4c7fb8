"""The model store: immutable numbered versions in a folder, and one pointer to what should be live.

    <root>/<name>/<version>/          model.pt, tables.safetensors, manifest.json
    <root>/<name>/serving.json        {"stable": 7, "canary": {"version": 8, "share": 0.05}, "shadow": 9}
    <root>/<name>/.history.json       [3, 7]   what was stable, the last one last: where a rollback goes back to

A version is built aside in `.tmp-*`, fsynced and renamed; the pointer is replaced. A killed publisher leaves a `.tmp-*`
folder that nothing reads and a later publisher sweeps.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import structlog
import torch

from app.errors import ArtifactError, ConfigError
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.export import write_manifest
from app.registry.artifact.load import ArtifactLoader, read_manifest, read_manifest_bytes, verify_files
from app.registry.artifact.manifest import MANIFEST, PROGRAM, TABLES, Manifest
from app.registry.artifact.signing import MANIFEST_CONTEXT, POINTER_CONTEXT, SIGNATURE, Signer, Trust
from app.registry.gate.gate_report import GateCheck, recorded_refusal, write_refusal
from app.registry.store.pointer import (
    MAX_POINTER_BYTES,
    POINTER,
    CanaryPointer,
    Pointer,
    PointerSeal,
    VersionNumber,
    decode_pointer,
    signed_content,
)
from app.runtime.durable_file import fsync_path, replace_file

__all__ = ["HISTORY", "POINTER", "CanaryPointer", "ModelStore", "Pointer", "decode_pointer"]

log = structlog.get_logger(__name__)

HISTORY = ".history.json"
MAX_HISTORY = 100
STALE_AFTER_S = 24 * 3600
VERSION = re.compile(r"[1-9][0-9]{0,14}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class ModelStore:
    """One model's folder in the store."""

    def __init__(self, root: Path, name: str, *, signer: Signer | None = None, trust: Trust | None = None) -> None:
        """
        Args:
            signer: signs what is published and every change of the pointer.
            trust: refuses what was not signed.
        """
        if not NAME.fullmatch(name):
            raise ConfigError(f"model name {name!r}: use letters, digits, '_', '-' and '.'")
        self.name = name
        self.folder = root / name
        self.trust = trust
        self._signer = signer
        self._loader = ArtifactLoader()

    @classmethod
    def open(cls, root: Path, name: str, signing_key: Path | None, trusted_keys: Sequence[Path]) -> ModelStore:
        """With the keys of these PEM files. Raises ConfigError."""
        signer = Signer.read(signing_key) if signing_key else None
        return cls(root, name, signer=signer, trust=Trust.read(trusted_keys) if trusted_keys else None)

    def load(self, version: int, device: torch.device | str = "cpu") -> Artifact:
        """Raises ArtifactError; `gate` where it was refused before it went live."""
        raw = read_manifest_bytes(self.path(version))
        if self.trust is not None:  # ahead of everything, the gate's report included
            self.trust.check_manifest(self.path(version), raw)
        refused = recorded_refusal(self.path(version), raw)
        if refused is not None:
            raise ArtifactError("gate", f"it was refused ({refused.reason}): {refused.detail}")
        return self._loader.load(self.path(version), device, version=version, name=self.name, trust=self.trust)

    def versions(self) -> list[int]:
        """Published versions, ascending."""
        try:
            entries = [entry.name for entry in os.scandir(self.folder)]
        except OSError:
            return []
        return sorted(int(entry) for entry in entries if VERSION.fullmatch(entry))

    def path(self, version: int) -> Path:
        return self.folder / str(version)

    def manifest(self, version: int) -> Manifest:
        """Raises ArtifactError."""
        return read_manifest(self.path(version), self.trust)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder on the store's own file system to build a version in; gone afterwards unless published."""
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            staged = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self.folder))
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def publish(self, staged: Path) -> int:
        """Give a version that `app.registry.artifact.export.write` built in a `staging()` folder its number and place.

        Raises ArtifactError for a folder that holds no whole version.
        """
        manifest = read_manifest(staged)
        with self.lock():
            version = (self.versions() or [0])[-1] + 1
            raw = write_manifest(staged, msgspec.structs.replace(manifest, name=self.name, version=version))
            (staged / SIGNATURE).unlink(missing_ok=True)
            if self._signer is not None:
                (staged / SIGNATURE).write_bytes(self._signer.sign(MANIFEST_CONTEXT, raw))
            for file in staged.iterdir():
                fsync_path(file)
            os.chmod(staged, 0o755)  # noqa: S103  # mkdtemp made it private; the service may run as another user
            fsync_path(staged)
            os.rename(staged, self.path(version))
            fsync_path(self.folder)
        return version

    def publish_copy(self, source: Path) -> int:
        """The same for a version folder elsewhere, which stays as it is; the copy has the bytes its manifest names.

        Raises ArtifactError.
        """
        read_manifest(source)
        with self.staging() as staged:
            reports = [file for file in ("report.html", "report.json") if (source / file).is_file()]
            for file in (PROGRAM, TABLES, MANIFEST, *reports):
                try:
                    shutil.copyfile(source / file, staged / file, follow_symlinks=False)
                except OSError as error:
                    raise ArtifactError(
                        "file", f"{source / file} cannot be copied: {error.strerror or error}"
                    ) from error
            verify_files(staged)  # the copy, not the source; whether it is any good is the gate's to say
            return self.publish(staged)

    def pointer_bytes(self) -> bytes | None:
        """Content of `serving.json`, or None where there is none. Raises ArtifactError where it cannot be read."""
        try:
            with open(self.folder / POINTER, "rb", opener=_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ArtifactError("pointer", f"{POINTER} is not a regular file")
                return file.read(MAX_POINTER_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ArtifactError("pointer", f"{POINTER} cannot be read: {error.strerror}") from error

    def pointer(self) -> Pointer:
        """Raises ArtifactError where it is damaged."""
        return decode_pointer(self.pointer_bytes())

    def update_pointer(self, **labels: object) -> Pointer:
        """Change some labels and keep the others: `update_pointer(stable=7)`. Raises ArtifactError."""
        with self.lock():
            return self._point(msgspec.structs.replace(self._pointer_or_new(), **labels))

    def promote(self, version: int, label: str = "stable", share: float = 0.05) -> Pointer:
        """Give a version a label. One that becomes stable is no longer a canary or a shadow. Raises ArtifactError."""
        with self.lock():
            pointer = self._pointer_or_new()
            if label == "canary":
                pointer = msgspec.structs.replace(pointer, canary=CanaryPointer(version, share))
            else:
                pointer = msgspec.structs.replace(pointer, **{label: version})
            if label == "stable" and pointer.canary is not None and pointer.canary.version == version:
                pointer = msgspec.structs.replace(pointer, canary=None)
            if label == "stable" and pointer.shadow == version:
                pointer = msgspec.structs.replace(pointer, shadow=None)
            return self._point(pointer)

    def roll_back(self, version: int) -> Pointer:
        """Make an earlier version stable and forget those that were stable since. Raises ArtifactError."""
        with self.lock():
            past = self.history()
            past = past[: past.index(version)] if version in past else past[:-1]
            return self._point(msgspec.structs.replace(self._pointer_or_new(), stable=version), past)

    def withdraw(self, version: int, refusal: GateCheck) -> list[str]:
        """Refuse a version, and take away the labels it has: the canary, the shadow, never stable.

        Returns:
            Those labels; none where somebody was faster.

        Raises:
            ArtifactError: `stable` where it is that, `file` where nothing can be written.
        """
        with self.lock():
            pointer = self.pointer()
            if pointer.stable == version:
                raise ArtifactError("stable", f"version {version} is stable: roll back first")
            held = [label for label, named in pointer.versions_by_label().items() if named == version]
            manifest = read_manifest_bytes(self.path(version))
            if held or recorded_refusal(self.path(version), manifest) is None:
                write_refusal(self.path(version), version, manifest, refusal, pointer.stable)
            if held:
                self._point(msgspec.structs.replace(pointer, **dict.fromkeys(held)))
            return held

    def rollback_candidates(self, before: int | None = None) -> list[int]:
        """Published versions to return to, best first: those that were stable, the latest first, then lower numbers.

        Args:
            before: the version to get away from; None where the pointer is lost.
        """
        published = self.versions()
        once_stable = [version for version in reversed(self.history()) if version in published]
        lower = [version for version in reversed(published) if before is None or version < before]
        return [version for version in dict.fromkeys(once_stable + lower) if version != before]

    def _pointer_or_new(self) -> Pointer:
        """A damaged pointer must not stop the promotion that repairs it."""
        try:
            return self.pointer()
        except ArtifactError as error:
            log.warning("pointer_replaced", model=self.name, reason=str(error))
            return Pointer()

    def history(self) -> list[int]:
        """What was stable, the last one last; empty where that is not known."""
        try:
            return msgspec.json.decode((self.folder / HISTORY).read_bytes(), type=list[VersionNumber])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return []  # a convenience: whatever is wrong with it must not stop a promotion

    def _point(self, pointer: Pointer, history: list[int] | None = None) -> Pointer:
        """Replace the pointer; the caller holds the lock."""
        pointer = self._signed(pointer)
        content = msgspec.json.encode(pointer)
        decode_pointer(content)
        past = self.history() if history is None else history
        if pointer.stable is not None and past[-1:] != [pointer.stable]:
            past = [*past, pointer.stable]
        replace_file(self.folder / HISTORY, msgspec.json.encode(past[-MAX_HISTORY:]))
        replace_file(self.folder / POINTER, content + b"\n")
        fsync_path(self.folder)
        return pointer

    def _signed(self, pointer: Pointer) -> Pointer:
        if self._signer is None:
            return msgspec.structs.replace(pointer, seal=None)
        # The clock, so that a lost pointer does not begin again at 1; one more, so that it never stands still.
        serial = max(time.time_ns(), pointer.seal.serial + 1 if pointer.seal else 0)
        seal = PointerSeal(serial, self._signer.sign(POINTER_CONTEXT, signed_content(self.name, pointer, serial)).hex())
        return msgspec.structs.replace(pointer, seal=seal)

    def authorize(self, pointer: Pointer) -> None:
        """Remember what a signed pointer allows; called for each pointer that is read to be followed."""
        if self.trust is None:
            return
        serial, seal = None, pointer.seal
        if seal is not None:
            content = signed_content(self.name, pointer, seal.serial)
            if self.trust.signed(POINTER_CONTEXT, content, bytes.fromhex(seal.signature)):
                serial = seal.serial
        self.trust.follow(serial, frozenset(pointer.versions_by_label().values()))

    def _sweep(self) -> None:
        """Remove what killed publishers left a day or more ago."""
        for entry in self.folder.glob(".tmp-*"):
            with contextlib.suppress(OSError):
                if time.time() - entry.stat().st_mtime > STALE_AFTER_S:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Publishers take turns; readers never wait."""
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield

    @contextlib.contextmanager
    def exclusive_action(self) -> Iterator[None]:
        """For what takes long: one at a time, over all processes; nobody waits. Raises ArtifactError("busy")."""
        with self._writing():
            lock = (self.folder / ".action.lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ArtifactError("busy", "another action is at work on this model") from error
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtifactError("file", f"cannot write to {self.folder}: {error.strerror or error}") from error


def _without_waiting(path: str, flags: int) -> int:
    """A FIFO in the pointer's place must not hold the reader for ever."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
