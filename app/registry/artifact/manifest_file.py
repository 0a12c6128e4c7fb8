"""Read and write a version's `manifest.json`, and check its files by it. Nothing here needs torch.

Commands that only look at the store, or move a label, would otherwise wait for torch's import.
"""

from __future__ import annotations

from pathlib import Path

from app.errors import ArtifactError
from app.registry.artifact.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    PROGRAM,
    TABLES,
    FileProof,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from app.registry.artifact.signing import Trust
from app.registry.artifact.version_file import read_version_file, verify_file
from app.runtime.durable_file import fsync_path


def read_manifest(folder: Path, trust: Trust | None = None) -> Manifest:
    """Read a version's manifest, whose signature is checked with `trust`. Raises ArtifactError."""
    raw = read_manifest_bytes(folder)
    if trust is not None:
        trust.check_manifest(folder, raw)
    return decode_manifest(raw)


def read_manifest_bytes(folder: Path) -> bytes:
    """Read the bytes of a version's manifest. Raises ArtifactError("file")."""
    return read_version_file(folder / MANIFEST, MAX_MANIFEST_BYTES)


def write_manifest(folder: Path, manifest: Manifest) -> bytes:
    """Write the manifest and return its bytes. Raises ArtifactError("file")."""
    path, raw = folder / MANIFEST, encode_manifest(manifest)
    try:
        path.write_bytes(raw)
        fsync_path(path)
    except OSError as error:
        raise ArtifactError("file", f"{path} cannot be written: {error.strerror}") from error
    return raw


def proof_of(manifest: Manifest, file: str) -> FileProof:
    """Return what the manifest says of one of the version's files. Raises ArtifactError if it says nothing."""
    if file not in manifest.files:
        raise ArtifactError("manifest", f"the manifest names no {file}")
    return manifest.files[file]


def verify_files(folder: Path) -> None:
    """Check that the files are those the manifest names; nothing of the version is run. Raises ArtifactError."""
    manifest = read_manifest(folder)
    for name in (PROGRAM, TABLES):
        verify_file(folder / name, proof_of(manifest, name))
