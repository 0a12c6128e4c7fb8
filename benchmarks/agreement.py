"""Before anything is timed: every contender gives the same ranking for the same weights, or the run ends."""

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
from benchmarks.stage import Stage

TOLERANCE = 1e-4
REQUESTS = 3


def check(stage: Stage, contenders: Sequence[Contender], sizes: Sequence[int]) -> float:
    """The largest difference of a score from `forward`. Raises SystemExit where an answer is not the ranking."""
    torch.set_num_threads(1)
    artifact = load(stage.versions["bench"])
    worst = 0.0
    for size in sizes:
        for body in stage.bodies(size, seed=size + 1)[:REQUESTS]:
            request = msgspec.json.decode(body)
            expected = reference(artifact, stage, request)
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


JSON = {"content-type": "application/json"}


def reference(artifact: Artifact, stage: Stage, request: dict[str, Any]) -> dict[str, float]:
    """Item id to probability by the published program's plain `forward`."""
    catalogue, user = stage.catalogue, int(request["user_id"])
    items = [catalogue.raw("item", number, number + 1)[0] for number in map(int, request["item_ids"])]
    user_slots = artifact.user_encoder.encode(catalogue.raw("user", user, user + 1)[0], request["user_id"])
    item_slots: Slots = artifact.item_encoder.encode_many(items, request["item_ids"])
    return dict(zip(request["item_ids"], artifact.score_by_forward(user_slots, item_slots).tolist(), strict=True))


def compare(expected: dict[str, float], answered: list[dict[str, Any]]) -> float:
    """How far an answer is from the expected ranking: the largest difference of a score, or by which an item stands
    below one that should score less; infinite where it is not about the same items.

    Order counts up to ties: neighbours whose expected scores differ by less than the tolerance may change places.
    """
    if {item["item_id"] for item in answered} != expected.keys() or len(answered) != len(expected):
        return math.inf
    differences = [abs(item["score"] - expected[item["item_id"]]) for item in answered]
    truth = [expected[item["item_id"]] for item in answered]
    lowest = math.inf
    for score in truth:
        differences.append(score - lowest)
        lowest = min(lowest, score)
    return max((d for d in differences if d != -math.inf), default=0.0)
