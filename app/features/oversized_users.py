"""`OversizedUsers` remembers which fields of which users hold values that are too large to be read.

Such a value is dropped as it arrives, but while the server sends 30 MB of it the replies behind it wait, of every
request that shares the connection. So it is not asked for again for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from app.features.hash_command import HashCommand
from app.features.resp_reader import OVERSIZED

KEPT_S = 30.0
"""After so long the field is read again: its value may have been mended."""
MAX_USERS = 1000
"""So many are remembered; the one that was noted first is forgotten for another."""


class OversizedUsers:
    """Keeps, by user, the command that reads all other fields, and until when it is used."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: gives the time, in seconds.
        """
        self._clock = clock
        self._known: dict[str, tuple[HashCommand, float]] = {}

    def command(self, user_id: str, usual: HashCommand) -> HashCommand:
        """Return the command that reads a user: `usual`, unless some of its values are known to be too large."""
        if not self._known or (known := self._known.get(user_id)) is None:
            return usual
        command, until = known
        if self._clock() < until:
            return command
        del self._known[user_id]
        return usual

    def note(self, user_id: str, command: HashCommand, reply: Sequence[object]) -> None:
        """Note which values of a user were too large in the reply to `command`, beside those that it leaves out."""
        too_large = {field for field, value in zip(command.fields, reply, strict=True) if value is OVERSIZED}
        if user_id not in self._known and len(self._known) >= MAX_USERS:
            del self._known[next(iter(self._known))]
        others = [field for field in command.fields if field not in too_large]
        self._known[user_id] = HashCommand(others, [*command.oversized, *too_large]), self._clock() + KEPT_S

    def forget(self) -> None:
        """Forget all, because other fields are read from now on."""
        self._known.clear()
