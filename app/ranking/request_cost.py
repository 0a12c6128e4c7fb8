"""What a request costs, in cached candidates: known before it is worked on, from what it asks for."""

from __future__ import annotations

from app.ranking.explain import MAX_EXPLAINED
from app.ranking.request import RankRequest

REQUEST_COST, BYTE_COST = 150.0, 0.1
"""The cost of a request beside its candidates, and before it is decoded of each byte; that of a cached candidate is 1,
about a microsecond."""
OVERRIDE_COST, EXPLAIN_COST = 10.0, 1500.0
"""The cost of an item with features sent for it, and of an item that is explained: 1.5 ms with 32 fields."""
HEAVY_COST = 3000.0
"""From this cost on a request is heavy: it is worked on in slices (`app.runtime.loop_pacer.SliceTurns`), so that others
wait for one slice of it at most, and it does not count as work before them."""


def cost_of(request: RankRequest) -> float:
    """Return what a request costs; of what the cache lacks nothing is known yet."""
    cost = REQUEST_COST + len(request.item_ids)
    if request.item_features:
        cost += OVERRIDE_COST * sum(map(bool, request.item_features.values()))
    if request.explain:
        cost += EXPLAIN_COST * min(MAX_EXPLAINED, len(request.item_ids), request.top_k or MAX_EXPLAINED)
    return cost


def cost_of_bytes(size: int) -> float:
    """Return what a request of so many bytes is taken to cost until it is decoded: it is not heavy yet."""
    return min(REQUEST_COST + BYTE_COST * size, HEAVY_COST - 1)
