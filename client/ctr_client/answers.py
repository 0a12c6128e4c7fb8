"""The service's answers as Python objects. What a newer service adds is in `raw`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RankedItem:
    """One item of a ranking."""

    item_id: str
    score: float
    """Click probability."""
    explanation: Any = None
    """Why it has this score, where that was asked for; docs/http.md of the service says what it holds."""
    propensity: float | None = None
    """How likely it was to stand here, given the items above it, where the order was drawn."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer to `rank`: items with their click probabilities, best first."""

    request_id: str
    """By which feedback names this answer."""
    model: str
    version: int
    label: str
    """`stable`, `canary` or `shadow`; empty for a version that was asked for and has none."""
    items: tuple[RankedItem, ...]
    degraded: tuple[str, ...]
    """Why the answer is less than full; empty if it is not."""
    missing_user: bool
    """Whether nothing is stored of the user, or it is a guest."""
    missing_items: tuple[str, ...]
    ignored: tuple[str, ...]
    """Places of the request that no field reads, which may be misspelt."""
    raw: Raw = field(repr=False)

    @classmethod
    def of(cls, raw: Raw) -> Ranking:
        """Read an answer of POST /rank."""
        return cls(
            request_id=raw["request_id"],
            model=raw["model"],
            version=raw["version"],
            label=raw["label"],
            items=tuple(
                RankedItem(one["item_id"], one["score"], one.get("explanation"), one.get("propensity"))
                for one in raw["items"]
            ),
            degraded=tuple(raw["degraded"]),
            missing_user=raw["missing"]["user"],
            missing_items=tuple(raw["missing"]["items"]),
            ignored=tuple(raw.get("ignored", ())),
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class Health:
    """The answer to `health`."""

    status: str
    """`ok`, `degraded` or `unhealthy`."""
    reasons: tuple[str, ...]
    raw: Raw = field(repr=False)


@dataclass(frozen=True, slots=True)
class Version:
    """A version in the service's model store."""

    version: int
    labels: tuple[str, ...]
    """What it is called in the store: `stable`, `canary`, `shadow`."""
    live: tuple[str, ...]
    """Labels under which it answers in the process that was asked."""
    metrics: Raw
    raw: Raw = field(repr=False)


@dataclass(frozen=True, slots=True)
class Feedback:
    """What became of an item that was shown."""

    request_id: str
    """Of the ranking."""
    item_id: str
    type: str = "click"
    at: float | str | None = None
    """When it happened, in seconds since 1970 or ISO 8601; None for now."""
    value: float | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """A name for this record: sent twice, it counts once."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as POST /feedback takes it."""
        record = {name: getattr(self, name) for name in ("request_id", "item_id", "type", "at", "value", "id")}
        return {name: value for name, value in record.items() if value is not None}


@dataclass(frozen=True, slots=True)
class FeedbackResult:
    """How many records the service took."""

    accepted: int
    rejected: int
    errors: tuple[tuple[int, str], ...]
    """The place of a record that was not taken, and why."""
