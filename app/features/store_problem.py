"""`StoreProblem`: what a store that is connected refuses or is too late for, for `/health` and once for the log."""

from __future__ import annotations

import time

import structlog

log = structlog.get_logger(__name__)

LASTS_S = 5.0
"""How long after the last refusal the store counts as one that refuses: other keys may be read well meanwhile."""
LATE_FETCHES = 20
"""So many fetches in a row without an answer in time are a problem of the store, and not of a moment."""
FROM_DEFAULTS = "answers are made from defaults"


class StoreProblem:
    """The last problem of one store, and what was logged since it was last connected to."""

    def __init__(self) -> None:
        self._reason, self._until = "", 0.0
        self._late_fetches, self._lateness = 0, ""
        self._logged: set[str] = set()

    @property
    def reason(self) -> str:
        """Why nothing, or not everything, can be read; empty if all is well."""
        return self._reason if time.monotonic() < self._until else ""

    @property
    def late(self) -> bool:
        """Whether the last fetches were all without an answer in time."""
        return self._late_fetches >= LATE_FETCHES

    @property
    def lateness(self) -> str:
        """What is to be said of that; empty if they were not."""
        return self._lateness if self.late else ""

    def on_connected(self) -> None:
        """Log everything anew that is met on a new connection."""
        self._logged.clear()
        self._late_fetches = 0

    def on_answer(self) -> None:
        """Begin to count late fetches anew."""
        self._late_fetches = 0

    def on_late(self, timeout_s: float) -> None:
        """Count a fetch without an answer in time; several in a row are a problem of the store."""
        self._late_fetches += 1
        if self.late:
            self._lateness = (
                f"no answer within {timeout_s * 1000:g} ms (CTR_REDIS_TIMEOUT_MS), {LATE_FETCHES} times in a row"
            )
            self.on_refusal("late", self._lateness)

    def on_refusal(self, kind: str, reason: str) -> None:
        """Take note that the store refuses to be read; `kind` tells refusals apart for the log."""
        self._reason, self._until = reason, time.monotonic() + LASTS_S
        self.log_once(kind, reason, FROM_DEFAULTS)

    def log_once(self, kind: str, reason: str, effect: str) -> None:
        """Log what the store refuses, once a connection."""
        if self.is_new(kind):
            log.error("feature_store_refuses", reason=reason, effect=effect)

    def is_new(self, kind: str) -> bool:
        """Return whether this is to be logged, and remember that it was."""
        is_new = kind not in self._logged
        self._logged.add(kind)
        return is_new
