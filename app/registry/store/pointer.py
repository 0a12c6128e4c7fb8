"""`serving.json`: the versions that the service should run."""

from __future__ import annotations

from typing import Annotated

import msgspec

from app.errors import ArtifactError

POINTER = "serving.json"
MAX_POINTER_BYTES = 64 * 1024

VersionNumber = Annotated[int, msgspec.Meta(ge=1)]


class CanaryPointer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version that is the canary, and the share of users in [0, 1] that it answers."""

    version: VersionNumber
    share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class PointerSeal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A publisher's signature over the labels, and a serial that orders pointers in time."""

    serial: Annotated[int, msgspec.Meta(ge=1)]
    """Nanoseconds since 1970; it grows with every change, so that an old pointer is told from a new one."""
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]
    """Ed25519, in hexadecimal, over `signed_content`."""


class Pointer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Assigns labels to versions."""

    stable: VersionNumber | None = None
    canary: CanaryPointer | None = None
    shadow: VersionNumber | None = None
    seal: PointerSeal | None = None
    """Set if the publisher has a signing key."""

    def versions_by_label(self) -> dict[str, int]:
        """Map each label that some version has to that version."""
        canary = self.canary.version if self.canary else None
        versions = {"stable": self.stable, "canary": canary, "shadow": self.shadow}
        return {label: version for label, version in versions.items() if version is not None}

    def labels_of(self, version: int) -> list[str]:
        """Return the labels that a version has."""
        return [label for label, labelled in self.versions_by_label().items() if labelled == version]


def decode_pointer(content: bytes | None) -> Pointer:
    """Decode the file's content, None as an empty pointer. Raises ArtifactError("pointer") if it does not fit."""
    if content is None:
        return Pointer()
    try:
        return msgspec.json.decode(content, type=Pointer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError("pointer", f"{POINTER} does not fit: {error}") from error


def signed_content(name: str, pointer: Pointer, serial: int) -> bytes:
    """Return the bytes that a seal signs: the model's name, the serial and the labels."""
    return msgspec.json.encode([name, serial, msgspec.structs.replace(pointer, seal=None)])
