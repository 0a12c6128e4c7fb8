"""Signatures of manifests and of the pointer by Ed25519, and protection against replays (docs/adr/0004).

A manifest proves every byte of its version and holds its name and number, so one signature of it covers all of that.
The signature lies beside it as 64 bytes, so that nothing of an untrusted version is parsed. `cryptography` is needed
only where a key is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import ArtifactError, ConfigError
from app.registry.artifact.version_file import read_version_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "manifest.sig"
MAX_SIGNATURE_BYTES = 1 << 16
"""More than any signature has: longer files are no good either, and are not read."""
# Signed with the content, so that a signature of one kind of document does not pass for one of another.
MANIFEST_CONTEXT, POINTER_CONTEXT = b"ctr-serving manifest 1\n", b"ctr-serving pointer 1\n"
MISSING_EXTRA = "signatures need `pip install ctr-serving[signing]`"


class Signer:
    """A publisher's private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def read(cls, path: Path) -> Signer:
        """Read the key from a PEM file without a password. Raises ConfigError."""
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
            from cryptography.hazmat.primitives.serialization import load_pem_private_key
        except ImportError as error:
            raise ConfigError(f"CTR_SIGNING_KEY: {MISSING_EXTRA}") from error
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"CTR_SIGNING_KEY: {path} is not a readable PEM file of a private key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"CTR_SIGNING_KEY: {path} is not an Ed25519 key; `openssl genpkey -algorithm ed25519`")
        return cls(key)

    def sign(self, context: bytes, content: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(context + content)


class Trust:
    """The public keys that a process trusts, and the newest pointer and stable version it has seen of one model."""

    def __init__(self, keys: Sequence[Ed25519PublicKey]) -> None:
        self._keys = keys
        self._serial = 0
        """The serial of the latest signed pointer."""
        self._latest_stable = 0
        self._allowed: frozenset[int] = frozenset()
        """The versions that the latest signed pointer names."""

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Trust:
        """Read the keys from PEM files of public keys. Raises ConfigError."""
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
            from cryptography.hazmat.primitives.serialization import load_pem_public_key
        except ImportError as error:
            raise ConfigError(f"CTR_TRUSTED_KEYS: {MISSING_EXTRA}") from error
        keys = []
        for path in paths:
            try:
                key = load_pem_public_key(path.read_bytes())
            except (OSError, ValueError) as error:
                raise ConfigError(f"CTR_TRUSTED_KEYS: {path} is not a readable PEM file of a public key") from error
            if not isinstance(key, Ed25519PublicKey):
                raise ConfigError(f"CTR_TRUSTED_KEYS: {path} is not an Ed25519 key")
            keys.append(key)
        return cls(keys)

    def check_manifest(self, folder: Path, raw: bytes) -> None:
        """Check the signature beside a manifest. Raises ArtifactError with the reason `unsigned` or `signature`."""
        try:
            signature = read_version_file(folder / SIGNATURE, MAX_SIGNATURE_BYTES)
        except ArtifactError as error:
            raise ArtifactError("unsigned", f"the manifest is not signed: {error}") from error
        if not self.is_signed(MANIFEST_CONTEXT, raw, signature):
            raise ArtifactError("signature", "the manifest's signature is of no trusted key, or of other bytes")

    def is_signed(self, context: bytes, content: bytes, signature: bytes) -> bool:
        """Return whether the signature is that of a trusted key."""
        from cryptography.exceptions import InvalidSignature

        for key in self._keys:
            try:
                key.verify(signature, context + content)
            except InvalidSignature:
                continue
            return True
        return False

    def record_pointer(self, serial: int | None, versions: frozenset[int]) -> None:
        """Remember which versions a pointer that was read allows.

        Args:
            serial: the serial of its seal, None unless a trusted key signed it.
            versions: the versions that it names.
        """
        if serial is None or serial < self._serial:
            self._allowed = frozenset()
        else:
            self._serial, self._allowed = serial, versions

    def record_stable(self, version: int) -> None:
        """Remember that a version went live as stable."""
        self._latest_stable = max(self._latest_stable, version)

    def check_permitted(self, version: int) -> None:
        """Raise ArtifactError("replayed") for a version before the latest stable one that no signed pointer names."""
        if version < self._latest_stable and version not in self._allowed:
            raise ArtifactError(
                "replayed",
                f"version {version} is older than {self._latest_stable}, and no newly signed pointer goes back to it",
            )
