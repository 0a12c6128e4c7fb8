from __future__ import annotations

import asyncio
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DeadlinePassed
from app.ranking import ignored
from app.ranking.ignored import MAX_NAMED, ignored_features
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact
from app.runtime.loop_pacer import SliceTurns
from tests.turns import CountedTurns

names = st.sampled_from(["year", "tags", "yaer", "item_id", "toString"])
sent_features = st.dictionaries(
    st.integers(0, 12).map(str), st.dictionaries(names, st.just(1), max_size=3), max_size=12
)


@given(sent_features)
def test_a_request_in_slices_is_told_what_it_is_told_at_once(
    versions: list[Artifact], sent: dict[str, dict[str, object]]
) -> None:
    request = RankRequest("4", [str(number) for number in range(8)], context={"huor": 3}, item_features=sent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ignored, "SLICE", 3)
        at_once, sliced = [
            asyncio.run(ignored_features(versions[0], one, SliceTurns(), math.inf))
            for one in (request, request.replace(in_slices=True))
        ]
    read = versions[0].item_encoder.overridable
    places = ["context.huor"]
    for item_id, features in sent.items():
        if int(item_id) < 8:
            places += [f"item_features.{item_id}.{name}" for name in features if name not in read]
        else:
            places.append(f"item_features.{item_id}")
    assert at_once == sliced == places[:MAX_NAMED]


def test_others_have_a_turn_before_each_slice(versions: list[Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ignored, "SLICE", 10)
    ids = [str(number) for number in range(35)]
    request = RankRequest("4", ids, item_features={key: {"year": 1990} for key in ids})
    for in_slices, turns_taken in ((True, 4), (False, 0)):
        turns = CountedTurns()
        assert asyncio.run(ignored_features(versions[0], request.replace(in_slices=in_slices), turns, math.inf)) == []
        assert turns.count == turns_taken
    with pytest.raises(DeadlinePassed):
        asyncio.run(ignored_features(versions[0], request.replace(in_slices=True), turns, time.perf_counter()))
