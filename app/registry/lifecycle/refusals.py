"""The versions that a process has refused, and when it tries each again."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from app.registry.lifecycle.store_state import TargetVersion

TRANSIENT = frozenset({"file", "hash", "load", "prepare", "gate"})
"""Reasons that time may cure (a copy under way, a store that is down, a second judgement): tried ever more rarely."""
MAX_BACKOFF_S = 60.0


@dataclass(frozen=True)
class VersionRefusal:
    """Why a version is not activated."""

    reason: str
    """One short word, as in `ArtifactError.reason`."""
    message: str
    attempts: int
    recorded_at: float
    retry_at: float
    """The next try on the monotonic clock, as `recorded_at`; infinite if only a new pointer or manifest can help."""


class Refusals:
    """The refused versions of one process."""

    def __init__(self, first_backoff_s: float) -> None:
        self._first_backoff_s = first_backoff_s
        self._refusals: dict[TargetVersion, VersionRefusal] = {}

    def __getitem__(self, target: TargetVersion) -> VersionRefusal:
        return self._refusals[target]

    def record(self, target: TargetVersion, reason: str, message: str, *, final: bool = False) -> None:
        """Refuse a version, with a longer wait each time if time may cure the reason.

        Args:
            final: never try again by itself, whatever the reason.
        """
        earlier = self._refusals.get(target)
        attempts = earlier.attempts + 1 if earlier else 1
        transient = reason in TRANSIENT and not final
        wait_s = min(MAX_BACKOFF_S, self._first_backoff_s * 2**attempts) if transient else math.inf
        now = time.monotonic()
        self._refusals[target] = VersionRefusal(reason, message, attempts, now, now + wait_s)

    def holds_back(self, target: TargetVersion) -> bool:
        """Return True if the version was refused and is not due to be tried again."""
        refusal = self._refusals.get(target)
        return refusal is not None and time.monotonic() < refusal.retry_at

    def forget(self, target: TargetVersion) -> None:
        """Drop what is known of a version that works."""
        self._refusals.pop(target, None)

    def forget_before(self, moment: float) -> None:
        """Drop the refusals that were recorded before a moment on the monotonic clock."""
        self._refusals = {
            target: refusal for target, refusal in self._refusals.items() if refusal.recorded_at >= moment
        }
