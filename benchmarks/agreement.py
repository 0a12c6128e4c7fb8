"""Checks, before anything is timed, that every contender gives the same ranking for the same weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import torch

from app.features.slots import Slots
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from benchmarks.contenders import Contender
from benchmarks.testbed import Testbed

TOLERANCE = 1e-4
REQUESTS = 3
JSON = {"content-type": "application/json"}


def check_rankings(testbed: Testbed, contenders: Sequence[Contender], sizes: Sequence[int]) -> float:
    """Return the largest difference of a score from `forward`. Raises SystemExit if a contender ranks otherwise."""
    torch.set_num_threads(1)
    artifact = load(testbed.versions["bench"])
    worst = 0.0
    for size in sizes:
        for body in testbed.bodies(size, seed=size + 1)[:REQUESTS]:
            request = msgspec.json.decode(body)
            expected = reference(artifact, testbed, request)
            for contender in contenders:
                if contender.ranks:
                    response = httpx.post(f"{contender.url}/rank", content=body, timeout=30, headers=JSON)
                    if response.status_code != 200:
                        raise SystemExit(
                            f"error: {contender.name} answers {response.status_code}: {response.text[:300]}"
                        )
                    difference = compare(expected, response.json()["items"])
                    if not difference <= TOLERANCE:
                        raise SystemExit(
                            f"error: {contender.name} does not give the same ranking of {size} candidates "
                            f"(a score or the order differs by {difference:.3g}): nothing was timed"
                        )
                    worst = max(worst, difference)
    return worst


def reference(artifact: Artifact, testbed: Testbed, request: dict[str, Any]) -> dict[str, float]:
    """Return item id to probability, by the published program's plain `forward`."""
    catalogue, user = testbed.catalogue, int(request["user_id"])
    items = [catalogue.raw("item", number, number + 1)[0] for number in map(int, request["item_ids"])]
    user_slots = artifact.user_encoder.encode(catalogue.raw("user", user, user + 1)[0], request["user_id"])
    item_slots: Slots = artifact.item_encoder.encode_many(items, request["item_ids"])
    return dict(zip(request["item_ids"], artifact.score_by_forward(user_slots, item_slots).tolist(), strict=True))


def compare(expected: dict[str, float], items: list[dict[str, Any]]) -> float:
    """Return how far an answer is from the expected ranking.

    That is the largest difference of a score, or of the expected scores of two items that are in the wrong order. It
    is infinite if the answer is not about the same items. Neighbours whose expected scores differ by less than the
    tolerance may change places.
    """
    if {item["item_id"] for item in items} != expected.keys() or len(items) != len(expected):
        return math.inf
    differences = [abs(item["score"] - expected[item["item_id"]]) for item in items]
    expected_scores = [expected[item["item_id"]] for item in items]
    lowest = math.inf
    for score in expected_scores:
        differences.append(score - lowest)
        lowest = min(lowest, score)
    return max((d for d in differences if d != -math.inf), default=0.0)
