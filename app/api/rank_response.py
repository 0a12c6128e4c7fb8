"""The body of a ranking answer, made without an object per item."""

from __future__ import annotations

import ctypes

import orjson

from app.native import bindings
from app.ranking.explain import Explanation
from app.ranking.ranker import Ranking


def answer(ranking: Ranking, request_id: str) -> bytes:
    """The JSON document of the contract. Scores are written in the fewest digits that give the same float32."""
    items = _explained(ranking) if ranking.explanations else _items(ranking)
    rest = orjson.dumps(
        {
            "degraded": ranking.degraded,
            "missing": {"user": ranking.missing_user, "items": ranking.missing_items},
        }
    )
    return b'{"request_id":%b,"model":%b,"version":%d,"label":%b,"items":%b,%b' % (
        orjson.dumps(request_id),
        orjson.dumps(ranking.artifact.manifest.name),
        ranking.artifact.version,
        orjson.dumps(ranking.label),
        items,
        rest[1:],
    )


def _items(ranking: Ranking) -> bytes:
    """`[{"item_id":"20","score":0.1321},...]`, each id in the characters of the request."""
    ids, count = ranking.candidates, len(ranking.scores)
    order, scores = ranking.order.ctypes.data, ranking.scores.ctypes.data
    room = ctypes.create_string_buffer(bindings.max_items_bytes(ids.begins, ids.ends, order, count))
    size = bindings.write_items(ids.wire, ids.begins, ids.ends, order, scores, count, room)
    return ctypes.string_at(room, size)


def _explained(ranking: Ranking) -> bytes:
    items: list[dict[str, object]] = [
        {"item_id": item_id, "score": score}
        for item_id, score in zip(ranking.item_ids, ranking.scores.tolist(), strict=True)
    ]
    for item, explanation in zip(items, ranking.explanations, strict=False):
        item["explanation"] = [_effect(part) for part in explanation]
    return orjson.dumps(items)


def _effect(part: Explanation) -> dict[str, object]:
    return {"field": part.field, "effect": part.effect}
