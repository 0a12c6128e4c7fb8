"""`Finding`: something of a schema, a file or a store that does not match a version, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Check = Literal["schema", "store", "keys", "ids", "lacking", "invalid", "unknown", "types", "unread", "file"]
"""What is wrong: the schema itself; the store; no key of the template; ids of the file that the store lacks; a field
without values; values that no slot can hold; values that the version does not know; values that the file and the store
write otherwise; a field that nothing reads; the file itself."""


@dataclass(frozen=True)
class Finding:
    """One thing that does not match."""

    check: Check
    where: str
    """`schema`, `users`, `items` (of the store) or the file's name."""
    field: str
    """The raw field; empty where it is of no one field."""
    message: str
    advice: str
    share: float | None = None
    """Of what was sampled, where it is a share."""
    is_note: bool = False
    """Whether it does no harm by itself."""
