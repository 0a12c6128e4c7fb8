"""Keys that callers send in a header, as settings have them: the key itself, or its hash, perhaps with a name.

    a-key-itself
    sha256:<64 hexadecimal digits>
    shop=sha256:<64 hexadecimal digits>

`ctr key` makes them. Their hash is without salt and fast to compute, which is safe for keys of 256 random bits, and for
no password that a person thought of.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable

UNNAMED = "unnamed"
"""The name of a caller whose key has none."""
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
HASHED = re.compile(rf"(?:({NAME.pattern})=)?sha256:([0-9a-fA-F]{{64}})")
_MEANT_AS_HASH = re.compile(r"(?:[^=]*=)?sha256:", re.IGNORECASE)


def new_key() -> str:
    """Return a key of 256 random bits, whose prefix lets scanners of repositories and logs find it."""
    return f"ctr_{secrets.token_urlsafe(32)}"


def hashed(key: str, name: str = "") -> str:
    """Return a key as a setting has it that is not to hold the key itself."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{name}=sha256:{digest}" if name else f"sha256:{digest}"


def is_hashed(text: str) -> bool:
    """Return whether a setting holds a key's hash. Raises ValueError for what is meant to be one and is none."""
    if HASHED.fullmatch(text):
        return True
    if _MEANT_AS_HASH.match(text):
        raise ValueError("not a hash of a key; write NAME=sha256: and 64 hexadecimal digits, as `ctr key` prints them")
    return False


class KnownKeys:
    """The keys that one header may hold. Several may have one name, so that a caller can change keys."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """
        Args:
            texts: as settings have them.
        """
        self._names_by_digest = [_name_and_digest(text) for text in texts]
        self.requests = dict.fromkeys((name for name, _ in self._names_by_digest), 0)
        """Requests by the name of their key, counted by `name_of`."""

    def __bool__(self) -> bool:
        return bool(self._names_by_digest)

    def name_of(self, sent: bytes) -> str | None:
        """Return the name of the key that was sent; None if it is none of these.

        Hashes are compared, all of them and in full, so that the time tells nothing of a key.
        """
        digest, found = hashlib.sha256(sent).digest(), None
        for name, known in self._names_by_digest:
            if hmac.compare_digest(digest, known):
                found = name
        if found is not None:
            self.requests[found] += 1
        return found


def _name_and_digest(text: str) -> tuple[str, bytes]:
    match = HASHED.fullmatch(text)
    if match is None:
        return UNNAMED, hashlib.sha256(text.encode()).digest()
    return match[1] or UNNAMED, bytes.fromhex(match[2])
