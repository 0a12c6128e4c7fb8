"""The records of the event log: what was shown, of which items, and what came of it (docs/events.md is the format)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.features.slots import Keys, Values

References = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

IMPRESSIONS, ITEMS, FEEDBACK = "impressions", "items", "feedback"
KINDS = (ITEMS, IMPRESSIONS, FEEDBACK)
"""The kinds of records, in the order in which they are written: impressions refer to items written before."""


class Impression(NamedTuple):
    """One answer of POST /rank with the features as they were scored, and the first K of its items."""

    impression_id: str
    caller_id: str | None
    """The caller's own name for the request."""
    at_us: int
    """Microseconds since 1970."""
    user_id: str | None
    model: str
    version: int
    label: str
    schema_hash: str
    policy: str
    """How the order was drawn from the scores; empty for descending scores."""
    policy_parameter: float
    degraded: list[str]
    candidates: int
    """The number of distinct items that were ranked."""
    user_keys: Keys
    """[S] of the user's slots as they were scored, with what the request sent."""
    user_values: Values
    item_references: References
    """[K] which `ItemSlots` each item had."""
    scores: Scores
    """[K] probabilities."""
    propensities: Scores | None
    """[K] probabilities with which the policy put each item where it is, given those before it; None without one."""


class ItemSlots(NamedTuple):
    """An item's slots under one schema, written once for each change before the first impression that shows it."""

    reference: int
    """Unique among all workers."""
    item_id: str
    at_us: int
    schema_hash: str
    keys: Keys
    """[S]."""
    values: Values


class Feedback(NamedTuple):
    """What became of an item that was shown: a click, an order, or that it was really on the screen."""

    request_id: str
    """An impression's id, or the caller's own name for the request."""
    item_id: str
    type: str
    at_us: int
    """When it happened, by the sender's word, otherwise when it came."""
    received_at_us: int
    value: float | None
    feedback_id: str | None
    """The sender's name for this record; one that is sent twice counts once."""


CLICK = "click"
"""The type of feedback that says an item was clicked."""
SERVED = "served"
"""The name of data that training reads from a joined log."""
Record = Impression | ItemSlots | Feedback
