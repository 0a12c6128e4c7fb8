"""`manifest.json`: what a version is, and the hashes that prove what its files hold."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from app.errors import ArtifactError
from app.features.field_histogram import FieldHistogram

FORMAT = "ctr-torchscript-1"
"""Named in every manifest; a service refuses a format it does not know."""
PROGRAM, TABLES, MANIFEST = "model.pt", "tables.safetensors", "manifest.json"
MAX_MANIFEST_BYTES = 16 * 1024 * 1024

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class FileProof(msgspec.Struct, frozen=True):
    """The hash and the size in bytes of a file."""

    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=1)]


class GoldenRequest(msgspec.Struct, frozen=True):
    """A request as raw features, with its probabilities when the version was written; each load replays it."""

    user_id: str
    user: dict[str, Any]
    item_ids: list[str]
    items: list[dict[str, Any]]
    scores: list[float]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `manifest.json`."""

    checksum: str = ""
    """SHA-256 of every other byte of the file, set by `encode_manifest`. It comes first, so that it is found first."""
    name: str
    version: Annotated[int, msgspec.Meta(ge=0)]
    """The number that the model store gave it; 0 before."""
    format: str
    created_at: str
    """The time in UTC, ISO 8601."""
    architecture: str
    """The model class: `deepfm`, or `package.module:Class` of the user's own; `name` is the folder that it is in."""
    files: dict[str, FileProof]
    tables: dict[str, list[int]] = {}
    """The shape of each table by its name."""
    feature_schema: dict[str, Any]
    schema_hash: Sha256
    golden: list[GoldenRequest]
    metrics: dict[str, Any] = {}
    data: dict[str, Any] = {}
    """Where the training rows came from, and the window of time that they span."""
    config: dict[str, Any] = {}
    """The hyper-parameters, with the seed."""
    histograms: dict[str, FieldHistogram] = {}
    """How the values of each field were spread in training; empty in versions of earlier releases."""


def now() -> str:
    """Return the time as `created_at` has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the file's bytes, with their checksum."""
    blank = msgspec.json.encode(msgspec.structs.replace(manifest, checksum=""))
    blank = msgspec.json.format(blank, indent=1) + b"\n"
    return blank.replace(b'""', b'"%b"' % hashlib.sha256(blank).hexdigest().encode(), 1)


def decode_manifest(raw: bytes) -> Manifest:
    """Check and parse the file's bytes. Raises ArtifactError with the reason `manifest`, `format` or `hash`."""
    try:
        head = msgspec.json.decode(raw, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError("manifest", f"{MANIFEST} cannot be read: {error}") from error
    if head.format != FORMAT:
        raise ArtifactError("format", f"format {head.format!r} is not {FORMAT!r}: written by another release?")
    if hashlib.sha256(raw.replace(head.checksum.encode(), b"", 1)).hexdigest() != head.checksum:
        raise ArtifactError("hash", f"{MANIFEST} was changed after it was written: its checksum does not fit")
    try:
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError("manifest", f"{MANIFEST} does not fit: {error}") from error


class _Head(msgspec.Struct):
    format: str
    checksum: str
