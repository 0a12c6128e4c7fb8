"""`StoredHashes`: the keys and fields of users and items in Redis, and what the replies to reading them mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.features.hash_command import HashCommand
from app.features.key_template import KeyTemplate
from app.features.oversized_users import OversizedUsers
from app.features.resp_reader import OVERSIZED
from app.features.store import RawFeatures
from app.features.store_errors import explain_reply
from app.features.store_problem import StoreProblem

PROBE_ID = "ctr-serving-probe"
"""No entity's id: its keys are read to find out whether such keys may be."""


class StoredHashes:
    """One HASH per entity, of which the selected fields are read."""

    def __init__(self, user_key: str, item_key: str) -> None:
        """Select no fields yet. Args: user_key, item_key: key templates, such as `ctr:v1:user:{id}`."""
        self.user_key, self.item_key = KeyTemplate(user_key), KeyTemplate(item_key)
        self.user_hash, self.item_hash = HashCommand(()), HashCommand(())
        self._oversized_users = OversizedUsers()
        self.wrong_type = ""
        """What is to be said of keys that hold something else; empty if none was met."""

    def select(self, user: Sequence[str], item: Sequence[str]) -> bool:
        """Read these fields from now on; return whether those of items are others than before."""
        self.user_hash = HashCommand(user)
        self._oversized_users.forget()
        if set(item) == set(self.item_hash.fields):
            return False
        self.item_hash = HashCommand(item)
        return True

    def user_command(self, user_id: str) -> HashCommand:
        """Return the command that reads a user, without values that were too large a moment ago."""
        return self._oversized_users.command(user_id, self.user_hash)

    def note_user(self, user_id: str, command: HashCommand, reply: Any) -> None:
        """Remember which values of a user were too large, unless other fields are read by now."""
        if reply.__class__ is list and OVERSIZED in reply and command.all_fields == self.user_hash.all_fields:
            self._oversized_users.note(user_id, command, reply)

    def probe(self, count: int) -> list[bytes]:
        """Return commands that read `count` keys of each template which nobody has."""
        ids = [f"{PROBE_ID}{number or ''}" for number in range(count)]
        pairs = (self.user_key, self.user_hash), (self.item_key, self.item_hash)
        return [command.pack(template.key(probe_id)) for template, command in pairs for probe_id in ids]

    def on_error(self, reply: Any, problem: StoreProblem) -> RawFeatures | None:
        """Take note of an error in place of features: nothing is known of a key of another type, None of any other."""
        reason = explain_reply(reply)
        if str(reply).startswith("WRONGTYPE"):
            problem.log_once("WRONGTYPE", reason, "such users and items count as unknown")
            self.wrong_type = f"some keys cannot be read: {reason}"
            return {}
        problem.on_refusal(str(reply).partition(" ")[0], reason)
        return None

    def changed_items(self, push: list[Any]) -> list[str] | None:
        """Return the ids of the items that a report names; None stands for any item (FLUSHALL)."""
        if push[0] != "invalidate":
            return []
        if push[1] is None:
            return None
        ids = [self.item_key.id(key) for key in push[1] if isinstance(key, str)]
        return [item_id for item_id in ids if item_id is not None]


def untracked_effect(item_max_age_s: float | None) -> str:
    """Return what it means that a server reports no changes, for the log."""
    if item_max_age_s:
        return f"cached items are read again after {item_max_age_s:g} s"
    return "each request reads its items; CTR_ITEM_MAX_AGE_S caches them for so long"
