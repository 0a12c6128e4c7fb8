"""The schemas of the OpenAPI document that FastAPI does not know of: requests, the ranking and problems.

Those of requests are generated from the types that the parsers accept. Each schema has a name, which generators of
clients make types of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from app.api.admin import OptionalVersionBody, VersionBody
from app.api.feedback import FeedbackRecord
from app.api.problems import TYPES, URN
from app.api.schemas import AnyFeature, AnyFeatures, RankBody
from app.ranking.explain import MAX_EXPLAINED, Explanation
from app.ranking_policy import EPSILON, SOFTMAX

REF = "#/components/schemas/"

RANKED_ITEM = {
    "type": "object",
    "title": "RankedItem",
    "required": ["item_id", "score"],
    "properties": {
        "item_id": {"type": "string"},
        "score": {"type": "number", "minimum": 0, "maximum": 1, "description": "Click probability"},
        "propensity": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "With `exploration`, of the first items: the probability with which the policy puts the "
            "item here, given those above it",
        },
        "explanation": {
            "$ref": REF + "Explanation",
            "description": f"With `explain`, of the {MAX_EXPLAINED} best: why the item got its score",
        },
    },
}

EXPLORATION = {
    "type": "object",
    "title": "Exploration",
    "description": "How the order was drawn from the scores",
    "required": ["policy", "parameter"],
    "properties": {"policy": {"type": "string", "enum": [SOFTMAX, EPSILON]}, "parameter": {"type": "number"}},
}

MISSING = {
    "type": "object",
    "title": "Missing",
    "description": "What the store has no features of",
    "required": ["user", "items"],
    "properties": {"user": {"type": "boolean"}, "items": {"type": "array", "items": {"type": "string"}}},
}

RANKING = {
    "type": "object",
    "title": "Ranking",
    "required": ["request_id", "model", "version", "label", "items", "degraded", "missing"],
    "properties": {
        "request_id": {"type": "string"},
        "model": {"type": "string"},
        "version": {"type": "integer"},
        "label": {"type": "string"},
        "items": {"type": "array", "items": {"$ref": REF + "RankedItem"}},
        "degraded": {"type": "array", "items": {"type": "string"}, "description": "Why the answer is less than full"},
        "missing": {"$ref": REF + "Missing"},
        "impression_id": {
            "type": "string",
            "description": "Where the answer is recorded or its order drawn, and the request named itself: the id of "
            "the record",
        },
        "exploration": {"$ref": REF + "Exploration"},
        "ignored": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Where the request sent something that no field of the version reads, say context.huor; "
            "absent if there is nothing",
        },
    },
    "example": {
        "request_id": "abc",
        "model": "deepfm",
        "version": 7,
        "label": "stable",
        "items": [{"item_id": "20", "score": 0.1321}, {"item_id": "10", "score": 0.0417}],
        "degraded": [],
        "missing": {"user": False, "items": []},
    },
}

PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457, at most 4 KB",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "examples": sorted(URN + name for name in TYPES.values())},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "maxItems": 10, "items": {"$ref": REF + "Misfit"}},
    },
}

MISFIT = {
    "type": "object",
    "title": "Misfit",
    "description": "What does not fit, and where",
    "required": ["location", "message"],
    "properties": {"location": {"type": "string"}, "message": {"type": "string"}},
}

_LOOKAHEAD = "(?!\\n)"


def schemas() -> dict[str, Any]:
    """Return all schemas, by name."""
    bodies = (RankBody, FeedbackRecord, VersionBody, OptionalVersionBody)
    _, components = msgspec.json.schema_components([*bodies, Explanation], ref_template=REF + "{name}")
    components["RankRequest"] = components.pop("RankBody") | {"title": "RankRequest"}
    (value, features), _ = msgspec.json.schema_components([AnyFeature, AnyFeatures])
    # msgspec names classes alone, so that these would be spelt out in each of their places.
    components |= {"Features": {"title": "Features", **features}, "FeatureValue": {"title": "FeatureValue", **value}}
    for name in ("RankRequest", "Features"):
        components[name] = _with_names(components[name], {"Features": features, "FeatureValue": value})
    named = {"Ranking": RANKING, "RankedItem": RANKED_ITEM, "Missing": MISSING, "Problem": PROBLEM, "Misfit": MISFIT}
    named["Exploration"] = EXPLORATION
    return {name: _portable(schema) for name, schema in {**components, **named}.items()}


def references(part: Any) -> Iterator[str]:
    """Yield the names of the schemas that a part of the document refers to, not those that they refer to."""
    if isinstance(part, dict):
        if isinstance(reference := part.get("$ref"), str):
            yield reference.removeprefix(REF)
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def referred(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document's schemas that its routes refer to, directly or by others."""
    known, found = document["components"]["schemas"], set[str]()
    waiting = list(references(document["paths"]))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += references(known[name])
    return {name: schema for name, schema in known.items() if name in found}


def _with_names(part: Any, named: dict[str, Any]) -> Any:
    """Refer to a schema by its name wherever it is spelt out inside a part of the document."""
    if isinstance(part, dict):
        for name, schema in named.items():
            if part == schema:
                return {"$ref": REF + name}
        return {key: _with_names(value, named) for key, value in part.items()}
    return [_with_names(value, named) for value in part] if isinstance(part, list) else part


def _portable(part: Any) -> Any:
    """Leave out of patterns what only Python's `$` needs: that of JSON Schema is the end of the text.

    Many engines of regular expressions, among them those of Go and Rust, refuse the assertion.
    """
    if isinstance(part, dict):
        return {
            key: value.replace(_LOOKAHEAD, "") if key == "pattern" and isinstance(value, str) else _portable(value)
            for key, value in part.items()
        }
    return [_portable(value) for value in part] if isinstance(part, list) else part
