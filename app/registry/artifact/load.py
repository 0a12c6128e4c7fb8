"""Load a version's folder as an `Artifact`: read, verify and assemble its files, then check that it scores right.

The program (TorchScript, small) and the tables (safetensors, in sealed memory that all processes share) are two files;
`manifest.json` beside them proves both.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from app.errors import ArtifactError, SchemaError
from app.features.schema import FeatureSchema, schema_from_json
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.manifest import MANIFEST, PROGRAM, TABLES, Manifest, decode_manifest
from app.registry.artifact.manifest_file import proof_of, read_manifest_bytes
from app.registry.artifact.self_check import last_line, replay_golden_requests
from app.registry.artifact.signing import Trust
from app.registry.artifact.tables_file import load_tables
from app.registry.artifact.version_file import read_version_file, verify_bytes
from app.registry.artifact.version_lock import VersionLock
from app.registry.torchscript.loader import ProgramLoader
from app.registry.torchscript.served_program import ServedProgram, attach_tables
from app.runtime.thread_pacer import SLICE_BYTES, throttle

MAX_PROGRAM_BYTES = 1 << 30


class ArtifactLoader:
    """Loads versions. Keep one per process: it loads a version whose code it has seen before ten times as fast."""

    def __init__(self) -> None:
        self._programs = ProgramLoader()

    def load(
        self,
        folder: Path,
        device: torch.device | str = "cpu",
        *,
        version: int | None = None,
        name: str | None = None,
        trust: Trust | None = None,
        manifest_sha256: str | None = None,
    ) -> Artifact:
        """Read, verify and check a version.

        Args:
            version: refuse a manifest that says it is another version.
            name: the model it is served as; with `trust`, a manifest of another name is refused too.
            trust: refuse what is not signed by one of its keys, before anything is parsed.
            manifest_sha256: refuse any other manifest than that one, whose signature the caller has checked.

        Raises:
            ArtifactError: anything at all is wrong with it; `reason` says which check refused it.
        """
        version_lock = VersionLock(folder / MANIFEST)
        raw = read_manifest_bytes(folder)
        if trust is not None:
            trust.check_manifest(folder, raw)
        digest = hashlib.sha256(raw).hexdigest()
        if manifest_sha256 not in (None, digest):
            raise ArtifactError("hash", "the manifest changed while it was looked at")
        manifest = decode_manifest(raw)
        if version is not None and manifest.version != version:
            # A good signature means that it is one of ours that was put in another one's place.
            reason = "manifest" if trust is None else "replayed"
            raise ArtifactError(reason, f"the manifest is of version {manifest.version}, not {version}")
        if trust is not None and name is not None and manifest.name != name:
            raise ArtifactError("replayed", f"the manifest is of a model called {manifest.name}, not {name}")
        artifact = self.assemble(folder, manifest, torch.device(device), digest, version_lock)
        replay_golden_requests(artifact)
        return artifact

    def assemble(
        self,
        folder: Path,
        manifest: Manifest,
        device: torch.device,
        manifest_sha256: str = "",
        version_lock: VersionLock | None = None,
    ) -> Artifact:
        """Verify what the manifest proves and put it together, without scoring anything. Raises ArtifactError."""
        schema = _schema(manifest)
        program_bytes = read_version_file(folder / PROGRAM, MAX_PROGRAM_BYTES)
        verify_bytes(program_bytes, PROGRAM, proof_of(manifest, PROGRAM))
        tables = load_tables(folder / TABLES, proof_of(manifest, TABLES))
        if {name: list(table.shape) for name, table in tables.items()} != manifest.tables:
            raise ArtifactError("tables", f"{TABLES} does not hold the tables the manifest names")
        try:
            program = self._programs.load(program_bytes, device)
            attach_tables(program, {name: table.to(device) for name, table in tables.items()})
        except (RuntimeError, ValueError, AttributeError) as error:
            raise ArtifactError("program", f"{PROGRAM} cannot be loaded: {last_line(error)}") from error
        _check_finite(program)
        try:
            return Artifact(manifest, schema, program, device, manifest_sha256, version_lock)
        except SchemaError as error:
            raise ArtifactError("schema", f"the feature schema does not fit: {error}") from error


def load(
    folder: Path, device: torch.device | str = "cpu", *, version: int | None = None, manifest_sha256: str | None = None
) -> Artifact:
    """Load one version with a loader of its own, as `ArtifactLoader.load` does."""
    return ArtifactLoader().load(folder, device, version=version, manifest_sha256=manifest_sha256)


def _schema(manifest: Manifest) -> FeatureSchema:
    try:
        schema = schema_from_json(manifest.feature_schema)
    except SchemaError as error:
        raise ArtifactError("schema", f"the feature schema does not fit: {str(error).splitlines()[0]}") from error
    if schema.hash != manifest.schema_hash:
        raise ArtifactError("schema", "the feature schema does not have the hash the manifest says")
    return schema


def _check_finite(program: ServedProgram) -> None:
    """Raise ArtifactError("finite") if any weight is not finite; the tables are among the program's buffers."""
    for name, tensor in [*program.named_parameters(), *program.named_buffers()]:
        # Rows of bucket borders are padded with infinity.
        if tensor.is_floating_point() and not name.endswith("borders_GQ"):
            _check_finite_tensor(name, tensor)


def _check_finite_tensor(name: str, tensor: Tensor) -> None:
    for part in torch.split(tensor.reshape(-1), SLICE_BYTES // tensor.itemsize):
        if not bool(torch.isfinite(part).all()):
            raise ArtifactError("finite", f"{name} holds weights that are not finite")
        throttle()
