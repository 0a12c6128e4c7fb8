"""`RankRequest`: what one caller asks to have ranked, as any edge of the service hands it to the ranking core."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.features.store import RawFeatures


@dataclass(frozen=True, slots=True)
class RankRequest:
    """One user and the candidate items to rank for them; immutable once an edge has checked it."""

    user_id: str
    item_ids: Sequence[str]
    """[N] in the order sent, duplicates included."""
    context: RawFeatures = field(default_factory=dict)
    """Request-time fields such as the hour, by name."""
    user_features: RawFeatures = field(default_factory=dict)
    """Values that replace the stored ones of the user, for this request."""
    item_features: Mapping[str, RawFeatures] = field(default_factory=dict)
    """Values that replace the stored ones of an item, by item id."""
    top_k: int | None = None
    """How many of the best items to return; None returns all."""
    model: str | int | None = None
    """A label or a version number; None lets the routing decide."""
    explain: bool = False
    request_id: str | None = None
    """The caller's own name for the request, which the answer repeats."""

    def replace(self, **changes: Any) -> RankRequest:
        """Return a copy in which these fields have other values."""
        return dataclasses.replace(self, **changes)
