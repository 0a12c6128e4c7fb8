"""`serving.json`: what the service should run."""

from __future__ import annotations

from typing import Annotated

import msgspec

from app.errors import ArtifactError

POINTER = "serving.json"
MAX_POINTER_BYTES = 64 * 1024

Version = Annotated[int, msgspec.Meta(ge=1)]


class Canary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Version
    share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The publisher's word that the labels are as they should be."""

    serial: Annotated[int, msgspec.Meta(ge=1)]
    """Grows with every change, so that an old pointer is told from a new one: nanoseconds since 1970."""
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]
    """Ed25519, of the model's name, the serial and the labels."""


class Pointer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the service should run."""

    stable: Version | None = None
    canary: Canary | None = None
    shadow: Version | None = None
    seal: Seal | None = None
    """Where the publisher has a signing key."""


def labels_of(pointer: Pointer) -> dict[str, int]:
    """Label to version; labels nobody holds are left out."""
    canary = pointer.canary.version if pointer.canary else None
    named = {"stable": pointer.stable, "canary": canary, "shadow": pointer.shadow}
    return {label: version for label, version in named.items() if version is not None}


def decode_pointer(content: bytes | None) -> Pointer:
    """Raises ArtifactError("pointer")."""
    if content is None:
        return Pointer()
    try:
        return msgspec.json.decode(content, type=Pointer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError("pointer", f"{POINTER} does not fit: {error}") from error


def signed_content(name: str, pointer: Pointer, serial: int) -> bytes:
    """What a seal signs."""
    return msgspec.json.encode([name, serial, msgspec.structs.replace(pointer, seal=None)])
