"""Records for tests."""

from __future__ import annotations

import numpy as np

from app.events.records import Feedback, Impression, ItemSlots

AT_US = 1_790_000_000_000_000


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
