"""`encode_ranking` writes a ranking as the JSON answer of POST /rank, without a Python object per item."""

from __future__ import annotations

import ctypes

import msgspec
import numpy as np
import orjson

from app.native import bindings
from app.native.bindings import address_of
from app.ranking.ranker import Ranking


def encode_ranking(ranking: Ranking, request_id: str) -> bytes:
    """Return the JSON document. Scores are written in the fewest digits that give the same float32."""
    items = _encode_explained_items(ranking) if ranking.explanations else _encode_items(ranking)
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
    return b'{"request_id":%b,"model":%b,"version":%d,"label":%b,"items":%b,%b' % (
        orjson.dumps(request_id),
        orjson.dumps(ranking.artifact.manifest.name),
        ranking.artifact.version,
        orjson.dumps(ranking.label),
        items,
        orjson.dumps(rest)[1:],
    )


def _encode_items(ranking: Ranking) -> bytes:
    """Return `[{"item_id":"20","score":0.1321},...]`, with each id in the very bytes of the request.

    Where the order was drawn, the first have their propensities too.
    """
    ids, count = ranking.candidates, len(ranking.scores)
    order, scores, propensities, drawn = address_of(ranking.order), address_of(ranking.scores), None, 0
    if ranking.exploration is not None:
        drawn = len(ranking.exploration.propensities)
        propensities = address_of(ranking.exploration.propensities)
    most = bindings.max_items_bytes(ids.begins, ids.ends, order, count, drawn)
    buffer = np.empty(most, np.uint8)  # ctypes would make a type of its own for each size
    begin = address_of(buffer)
    size = bindings.write_items(ids.json, ids.begins, ids.ends, order, scores, propensities, drawn, count, begin)
    return ctypes.string_at(begin, size)


def _encode_explained_items(ranking: Ranking) -> bytes:
    items: list[dict[str, object]] = [
        {"item_id": item_id, "score": score}
        for item_id, score in zip(ranking.item_ids, ranking.scores.tolist(), strict=True)
    ]
    if ranking.exploration is not None:
        for item, propensity in zip(items, ranking.exploration.propensities.tolist(), strict=False):
            item["propensity"] = propensity
    for item, explanation in zip(items, ranking.explanations, strict=False):  # only the best items are explained
        item["explanation"] = explanation
    return msgspec.json.encode(items)
