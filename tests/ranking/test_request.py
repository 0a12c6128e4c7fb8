"""Tests that a request is a value: a changed copy is another request."""

from __future__ import annotations

import pytest

from app.ranking.request import RankRequest


def test_a_changed_copy_leaves_the_request_as_it_was() -> None:
    request = RankRequest("1", ["10", "20"], top_k=3)
    other = request.replace(model="shadow", top_k=None)
    assert (other.model, other.top_k, other.item_ids) == ("shadow", None, ["10", "20"])
    assert (request.model, request.top_k) == (None, 3)


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        RankRequest("1", ["10"]).model = "canary"  # type: ignore[misc]
