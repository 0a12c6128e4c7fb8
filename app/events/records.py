"""The records of the event log: what was shown, of which items, and what came of it (docs/events.md is the format)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.features.slots import Keys, Values

References = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

IMPRESSIONS, ITEMS, FEEDBACK = "impressions", "items", "feedback"
KINDS = (ITEMS, IMPRESSIONS, FEEDBACK)
"""The kinds of records, in the order in which they are written: impressions refer to items written before."""


class ImpressionBlock(NamedTuple):
    """N answers of POST /rank by one version under one label and policy, column by column.

    Each has the features as they were scored, and its first items.
    """

    model: str
    version: int
    label: str
    schema_hash: str
    policy: str
    """How the order was drawn from the scores; empty for descending scores."""
    policy_parameter: float
    impression_ids: Sequence[str]
    """[N] the answers' ids, by which feedback finds them."""
    caller_ids: Sequence[str | None]
    """[N] the callers' own names for the requests."""
    at_us: Sequence[int]
    """[N] microseconds since 1970."""
    user_ids: Sequence[str | None]
    """[N] the users' ids as they are recorded, None for guests."""
    degraded: Sequence[Sequence[str]]
    """[N] the reasons for which an answer is degraded."""
    candidates: Sequence[int]
    """[N] the number of distinct items that were ranked."""
    items: Sequence[int]
    """[N] how many of an answer's first items are recorded; I is their sum."""
    user_keys: Keys
    """[N, S] of the user's slots as they were scored, with what the request sent."""
    user_values: Values
    """[N, S] of the same slots."""
    item_references: References
    """[I] which `ItemSlots` each item had, answer after answer."""
    scores: Scores
    """[I] probabilities."""
    propensities: Scores | None
    """[I] probabilities with which the policy put each item where it is, given those before it; None without one."""


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
Record = ImpressionBlock | ItemSlots | Feedback


def size_of(record: Record) -> int:
    """Return how many records a block is of; 1 for any other."""
    return len(record.impression_ids) if isinstance(record, ImpressionBlock) else 1


def kind_of(record: Record) -> str:
    """Return the kind of a record."""
    return _KINDS[type(record)]


def recorded_at_us(record: Record) -> int:
    """Return when a record, or the first of a block, came to be by this machine's clock, in microseconds since 1970."""
    if isinstance(record, Feedback):
        return record.received_at_us  # `at_us` is the sender's word, and may be months ago
    return record.at_us[0] if isinstance(record, ImpressionBlock) else record.at_us


_KINDS = {ImpressionBlock: IMPRESSIONS, ItemSlots: ITEMS, Feedback: FEEDBACK}
