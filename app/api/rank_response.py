"""`encode_ranking` writes a ranking as the JSON answer of POST /rank, without a Python object per item.

`encode_explained` does so with explanations, which are a hundred times as long, in pieces, and lets others have their
turn.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import msgspec
import numpy as np
import orjson

from app.native import bindings
from app.native.bindings import address_of
from app.ranking.explain import Explanation
from app.ranking.ranker import Ranking
from app.runtime.loop_pacer import SliceTurns

SLICE = 2
"""Explained items written at a time: each has some hundred parts, 20 kB."""


def encode_ranking(ranking: Ranking, request_id: str) -> bytes:
    """Return the JSON document, without explanations. Scores have the fewest digits that give the same float32."""
    before, after = _around_items(ranking, request_id)
    return b"%b%b%b" % (before, _encode_items(ranking), after)


async def encode_explained(ranking: Ranking, request_id: str, turns: SliceTurns) -> list[bytes]:
    """Return the JSON document of a ranking with explanations in pieces, with a turn before each slice of them.

    It empties `ranking.explanations`: each slice is freed once it is written, since freeing all takes a millisecond.
    """
    before, after = _around_items(ranking, request_id)
    pieces = [b"%b[" % before]
    left, ranking.explanations = ranking.explanations, ()
    first = 0
    while left:
        await turns.next()
        some, left = left[:SLICE], left[SLICE:]
        pieces += [_encode_explained_items(ranking, first, some)[1:-1], b","]
        first += len(some)
    await turns.next()
    others = _encode_items(ranking, first)[1:]
    pieces[-1] = others if others == b"]" else b"," + others
    return [*pieces, after]


def _around_items(ranking: Ranking, request_id: str) -> tuple[bytes, bytes]:
    """Return what stands before the items in the JSON document, and what behind them."""
    rest: dict[str, object] = {
        "degraded": ranking.degraded,
        "missing": {"user": ranking.missing_user, "items": ranking.missing_items},
    }
    if ranking.exploration is not None:
        policy = ranking.exploration.policy
        rest["exploration"] = {"policy": policy.name, "parameter": policy.parameter}
    if ranking.impression_id is not None and ranking.request_id is not None:
        rest["impression_id"] = ranking.impression_id
    if ranking.ignored:
        rest["ignored"] = ranking.ignored
    before = b'{"request_id":%b,"model":%b,"version":%d,"label":%b,"items":' % (
        orjson.dumps(request_id),
        orjson.dumps(ranking.artifact.manifest.name),
        ranking.artifact.version,
        orjson.dumps(ranking.label),
    )
    return before, b",%b" % orjson.dumps(rest)[1:]


def _encode_items(ranking: Ranking, first: int = 0) -> bytes:
    """Return `[{"item_id":"20","score":0.1321},...]` from one item on, each id in the very bytes of the request.

    Where the order was drawn, the first of all have their propensities too.
    """
    ids, count = ranking.candidates, len(ranking.scores) - first
    if not count:
        return b"[]"
    order, scores = address_of(ranking.order[first:]), address_of(ranking.scores[first:])
    propensities, drawn = None, 0
    if ranking.exploration is not None and len(ranking.exploration.propensities) > first:
        drawn = len(ranking.exploration.propensities) - first
        propensities = address_of(ranking.exploration.propensities[first:])
    most = bindings.max_items_bytes(ids.begins, ids.ends, order, count, drawn)
    buffer = np.empty(most, np.uint8)  # ctypes would make a type of its own for each size
    begin = address_of(buffer)
    size = bindings.write_items(ids.json, ids.begins, ids.ends, order, scores, propensities, drawn, count, begin)
    return ctypes.string_at(begin, size)


def _encode_explained_items(ranking: Ranking, first: int, explanations: Sequence[Explanation]) -> bytes:
    """Return the JSON array of the items from one of them on, as many as there are explanations."""
    some = slice(first, first + len(explanations))
    ids = ranking.candidates.at(ranking.order[some].tolist())
    # In the fewest digits, as `_encode_items` writes them.
    scores = [float(str(score)) for score in ranking.scores[some]]
    items: list[dict[str, object]] = [
        {"item_id": item_id, "score": score, "explanation": explanation}
        for item_id, score, explanation in zip(ids, scores, explanations, strict=True)
    ]
    if ranking.exploration is not None:
        for item, propensity in zip(items, ranking.exploration.propensities[some].tolist(), strict=False):
            item["propensity"] = propensity
    return msgspec.json.encode(items)
