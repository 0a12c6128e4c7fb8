"""User ids as they are recorded where nobody is to know them."""

from __future__ import annotations

import hashlib


def hashed_id(user_id: str, key: str) -> str:
    """Return what is recorded in place of a user's id: a hash that nobody can make without the key."""
    return hashlib.blake2b(user_id.encode(errors="surrogatepass"), key=key.encode()[:64], digest_size=16).hexdigest()
