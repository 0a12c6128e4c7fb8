from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.api.rank_response import encode_explained, encode_ranking
from app.features.request_ids import RequestIds
from app.ranking.explain import Explanation, FieldEffect, LogitCalibration
from app.ranking.exploration import Exploration
from app.ranking.logit_parts import LogitPart
from app.ranking.ranker import Ranking
from app.ranking_policy import RankingPolicy
from app.runtime.loop_pacer import SliceTurns

ids = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
score = st.floats(0, 1, width=32)


def ranking(items: list[tuple[str, float]], **changes: Any) -> Ranking:
    values: dict[str, Any] = {
        "artifact": SimpleNamespace(manifest=SimpleNamespace(name="deepfm"), version=7),
        "label": "stable",
        "candidates": RequestIds.from_strings([item_id for item_id, _ in items]),
        "order": np.arange(len(items)),
        "scores": np.array([value for _, value in items], np.float32),
        "degraded": [],
        "missing_user": False,
        "missing_items": [],
        "explanations": [],
    }
    return Ranking(**(values | changes))


def read_answer(answer: Ranking) -> dict[str, Any]:
    if answer.explanations:
        content = b"".join(asyncio.run(encode_explained(answer, "x", SliceTurns())))
    else:
        content = encode_ranking(answer, "x")
    return json.loads(content)  # type: ignore[no-any-return]


@given(st.lists(st.tuples(ids, score), min_size=1, max_size=20), ids)
def test_it_is_the_json_of_what_was_ranked(items: list[tuple[str, float]], request_id: str) -> None:
    """Whatever is in an id: quotes, backslashes, control characters, other scripts."""
    missing = [items[0][0]]
    read = json.loads(
        encode_ranking(ranking(items, missing_items=missing, degraded=["stale_item_features"]), request_id)
    )
    assert read == {
        "request_id": request_id,
        "model": "deepfm",
        "version": 7,
        "label": "stable",
        "items": [{"item_id": item_id, "score": read["items"][n]["score"]} for n, (item_id, _) in enumerate(items)],
        "degraded": ["stale_item_features"],
        "missing": {"user": False, "items": missing},
    }
    assert [np.float32(item["score"]) for item in read["items"]] == [np.float32(value) for _, value in items]


@given(st.lists(st.tuples(score, st.one_of(score, st.floats(2.0**-50, 2.0**-9, width=32))), min_size=1, max_size=20))
def test_propensities_stand_beside_scores(pairs: list[tuple[float, float]]) -> None:
    """Small ones are read as the same float32 too, explained or not."""
    propensities = np.array([propensity for _, propensity in pairs], np.float32)[:15]
    drawn = ranking([(str(n), value) for n, (value, _) in enumerate(pairs)])
    drawn.exploration = Exploration(RankingPolicy("softmax", 0.05), propensities, drawn.scores)
    explanation = Explanation(None, LogitCalibration(1.0, -0.5), [], no_parts="why")
    for answer in (drawn, replace(drawn, explanations=[explanation])):
        read = read_answer(answer)
        assert read["exploration"] == {"policy": "softmax", "parameter": 0.05}
        assert [np.float32(item["score"]) for item in read["items"]] == [np.float32(value) for value, _ in pairs]
        assert [np.float32(item["propensity"]) for item in read["items"][:15]] == propensities.tolist()
        assert not any("propensity" in item for item in read["items"][15:])


def test_explanations_follow_their_items() -> None:
    effects = [FieldEffect("age", 0.5), FieldEffect("year", -0.25)]
    parts = [
        LogitPart("bias", (), 0.5),
        LogitPart("pair", ("age", "year"), -0.5),
        LogitPart("order", (), 0.125, order=3),
    ]
    explanations = [
        Explanation(0.125, LogitCalibration(1.0, -0.5), effects, parts),
        Explanation(None, LogitCalibration(1.0, -0.5), [], no_parts="why"),
    ]
    explained = ranking([("a", 0.5), ("b", 0.25), ("c", 0.0)], explanations=explanations)
    read = read_answer(explained)
    assert [item.get("explanation") for item in read["items"]] == [
        {
            "logit": 0.125,
            "calibration": {"scale": 1.0, "offset": -0.5},
            "effects": [{"field": "age", "effect": 0.5}, {"field": "year", "effect": -0.25}],
            "parts": [
                {"part": "bias", "fields": [], "value": 0.5},
                {"part": "pair", "fields": ["age", "year"], "value": -0.5},
                {"part": "order", "fields": [], "value": 0.125, "order": 3},
            ],
        },
        {"logit": None, "calibration": {"scale": 1.0, "offset": -0.5}, "effects": [], "no_parts": "why"},
        None,
    ]
    assert not explained.explanations, "they were given up as they were written"
    assert not any(gc.is_tracked(one) for one in (*effects, *parts, *explanations)), "thousands are made for an answer"


@given(st.lists(st.tuples(ids, score), min_size=1, max_size=20), st.integers(1, 20))
def test_items_are_written_alike_explained_or_not(items: list[tuple[str, float]], explained: int) -> None:
    explanation = Explanation(None, LogitCalibration(1.0, 0.0), [], no_parts="why")
    read = read_answer(ranking(items, explanations=[explanation] * min(explained, len(items))))
    assert [item.pop("explanation", None) is not None for item in read["items"]] == [
        number < explained for number in range(len(items))
    ]
    assert read == json.loads(encode_ranking(ranking(items), "x"))
