"""Tests of parsing a body in slices: the request or the refusal that parsing it at once gives."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api import large_bodies
from app.api.large_bodies import parse_rank_in_slices
from app.api.schemas import parse_rank
from app.errors import RequestError
from app.ranking.request import RankRequest
from app.runtime.loop_pacer import SliceTurns
from tests.turns import CountedTurns

LIMIT = 50


def parse(raw: bytes) -> RankRequest:
    return asyncio.run(parse_rank_in_slices(raw, LIMIT, SliceTurns()))


texts = st.text(max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
bodies = st.fixed_dictionaries(
    {"item_ids": st.lists(st.integers(0, 9) | texts, max_size=LIMIT + 1)},
    optional={
        "user_id": st.just("42") | values,
        "item_features": st.dictionaries(texts, st.dictionaries(texts, values, max_size=3), max_size=12) | values,
        "context": st.dictionaries(texts, values, max_size=3),
        "explain": st.booleans() | values,
        "unknown": values,
    },
)


@given(bodies)
def test_it_gives_what_parsing_at_once_gives(body: dict[str, Any]) -> None:
    raw = json.dumps(body, ensure_ascii=False).encode()
    results: list[Any] = []
    for parse_it in (parse, lambda text: parse_rank(text, LIMIT)):
        try:
            results.append(parse_it(raw).replace(guest_arm=0.0))
        except RequestError as error:
            results.append((type(error), str(error)))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"item_ids":["1"],"item_features":{"1":{}}', b"\xff", b"[" * 100_000], ids=str
)
def test_what_is_no_request_is_refused_as_at_once(raw: bytes) -> None:
    with pytest.raises(RequestError) as at_once:
        parse_rank(raw, LIMIT)
    with pytest.raises(type(at_once.value)) as sliced:
        parse(raw)
    assert str(sliced.value) == str(at_once.value)


def test_features_are_read_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_bodies, "SLICE", 10)
    turns = CountedTurns()
    sent = {str(number): {"year": number} if number % 2 else {} for number in range(35)}
    raw = json.dumps({"user_id": "42", "item_ids": list(sent), "item_features": sent}).encode()
    request = asyncio.run(parse_rank_in_slices(raw, LIMIT, turns))
    assert request.item_features == sent
    assert turns.count == 1 + 4
