"""`HashCommand`: how the hash of one side's entities is read: the command for a key, and what its reply means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from app.features.resp_commands import key_command
from app.features.resp_reader import OVERSIZED
from app.features.store import RawFeatures

WITHOUT_FIELDS: Final[RawFeatures] = {"": None}
"""The features of an entity that is there, where no field is asked for."""


class HashCommand:
    """HMGET of some fields, since a hash may hold any number of others; HLEN where there are none to read."""

    def __init__(self, fields: Sequence[str], oversized: Sequence[str] = ()) -> None:
        """
        Args:
            fields: names within the hash, each once.
            oversized: other fields, which are not read because their values are known to be too large.
        """
        self.fields = tuple(fields)
        self.pack = key_command("HMGET", self.fields) if fields else key_command("HLEN")
        self.oversized: RawFeatures = dict.fromkeys(oversized, OVERSIZED)
        self.all_fields = frozenset([*fields, *oversized])

    def features(self, reply: Any) -> RawFeatures | None:
        """Return what a reply holds, None if it is an error.

        Without any of the fields an entity counts as unknown, unless some are left out as too large: whether those are
        still there is not asked.
        """
        if reply.__class__ is list:
            if self.oversized:
                return {**dict(zip(self.fields, reply, strict=True)), **self.oversized}
            return {} if reply.count(None) == len(reply) else dict(zip(self.fields, reply, strict=True))
        if reply.__class__ is int:
            return (self.oversized or WITHOUT_FIELDS) if reply else {}
        return None
