"""What costs much is known before it is worked on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.ranking.request import RankRequest
from app.ranking.request_cost import BYTE_COST, HEAVY_COST, REQUEST_COST, cost_of, cost_of_bytes


@pytest.mark.parametrize(
    ("request_of", "heavy"),
    [
        (lambda ids: RankRequest("1", ids), False),
        (lambda ids: RankRequest("1", ids, item_features={item_id: {} for item_id in ids}), False),
        (lambda ids: RankRequest("1", ids, item_features={item_id: {"year": 1} for item_id in ids}), True),
        (lambda ids: RankRequest("1", ids[:5], explain=True), True),
        (lambda ids: RankRequest("1", ids[:100], explain=True, top_k=1), False),
    ],
)
def test_overrides_and_explanations_make_a_request_heavy(
    request_of: Callable[[list[str]], RankRequest], heavy: bool
) -> None:
    ids = [str(number) for number in range(2000)]
    assert (cost_of(request_of(ids)) >= HEAVY_COST) is heavy
    assert cost_of(RankRequest("1", ids[:100])) == REQUEST_COST + 100


def test_a_request_is_not_heavy_before_it_is_decoded() -> None:
    assert cost_of_bytes(1000) == REQUEST_COST + 1000 * BYTE_COST
    assert cost_of_bytes(10**9) < HEAVY_COST
