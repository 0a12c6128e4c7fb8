"""Records for tests, and impressions one by one, as blocks of them hold them column by column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from app.events.records import Feedback, ImpressionBlock, ItemSlots, References, Scores
from app.features.slots import Keys, Values

AT_US = 1_790_000_000_000_000


class Impression(NamedTuple):
    """One answer, with what a block has of it; K are its items."""

    impression_id: str
    caller_id: str | None
    at_us: int
    user_id: str | None
    model: str
    version: int
    label: str
    schema_hash: str
    policy: str
    policy_parameter: float
    degraded: list[str]
    candidates: int
    user_keys: Keys
    user_values: Values
    item_references: References
    scores: Scores
    propensities: Scores | None


def block(impression: Impression) -> ImpressionBlock:
    """Return the block of one answer."""
    return ImpressionBlock(
        impression.model,
        impression.version,
        impression.label,
        impression.schema_hash,
        impression.policy,
        impression.policy_parameter,
        [impression.impression_id],
        [impression.caller_id],
        [impression.at_us],
        [impression.user_id],
        [impression.degraded],
        [impression.candidates],
        [len(impression.scores)],
        impression.user_keys[None],
        impression.user_values[None],
        impression.item_references,
        impression.scores,
        impression.propensities,
    )


def blocks(impressions: Iterable[Impression]) -> list[ImpressionBlock]:
    """Return a block for each answer."""
    return [block(impression) for impression in impressions]


def impressions_of(records: Iterable[object]) -> list[Impression]:
    """Return the answers of all blocks among some records, one by one."""
    return [answer for record in records if isinstance(record, ImpressionBlock) for answer in _answers_of(record)]


def _answers_of(block: ImpressionBlock) -> Iterable[Impression]:
    stops = np.cumsum(block.items)
    for number, stop in enumerate(stops.tolist()):
        items = slice(stop - block.items[number], stop)
        yield Impression(
            block.impression_ids[number],
            block.caller_ids[number],
            block.at_us[number],
            block.user_ids[number],
            *block[:6],
            list(block.degraded[number]),
            block.candidates[number],
            block.user_keys[number],
            block.user_values[number],
            block.item_references[items],
            block.scores[items],
            None if block.propensities is None else block.propensities[items],
        )


def impression(number: int, *, items: int = 3, propensities: bool = False, at_us: int = AT_US) -> Impression:
    return Impression(
        f"impression-{number}",
        None if number % 2 else f"own-{number}",
        at_us + number,
        None if number % 3 == 0 else str(number),
        "deepfm",
        7,
        "stable",
        "hash",
        "softmax" if propensities else "",
        0.05 if propensities else 0.0,
        ["stale_item_features"] if number % 5 == 0 else [],
        500,
        np.arange(4) + number,
        np.linspace(0, 1, 4, dtype=np.float32),
        np.arange(items) + 10 * number,
        np.linspace(1, 0, items, dtype=np.float32),
        np.full(items, 0.5, np.float32) if propensities else None,
    )


def item(reference: int, *, at_us: int = AT_US) -> ItemSlots:
    return ItemSlots(reference, f"item-{reference}", at_us, "hash", np.arange(5) + reference, np.ones(5, np.float32))


def click(number: int, *, at_us: int = AT_US) -> Feedback:
    return Feedback(f"impression-{number}", f"item-{10 * number}", "click", at_us, at_us, None, f"click-{number}")
