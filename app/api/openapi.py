"""POST /rank in /docs and /openapi.json. The request's schema is generated from the types that the parser accepts."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI

from app.api.problems import MEDIA_TYPE, TYPES, URN
from app.api.schemas import RankBody
from app.observability.metrics import STAGES

REF = "#/components/schemas/"

DESCRIPTION = """Score candidate items for one user and sort them by click probability, highest first.

Only `user_id` and `item_ids` are required. Ids are strings; JSON integers are read as decimal strings. An unknown id is
scored from defaults and named in `missing`; a duplicate is ranked once. `user_features` and `item_features` override
what is stored, for this request. `model` is a label or a version number. An answer that is less than full is a 200
that says why in `degraded`."""

EXAMPLES = {
    "ids": {"summary": "Ids alone", "value": {"user_id": "42", "item_ids": ["10", "20", "30"]}},
    "everything": {
        "summary": "With features of the request",
        "value": {
            "user_id": "42",
            "item_ids": ["10", "20"],
            "context": {"hour": 21},
            "user_features": {"age": 25},
            "item_features": {"10": {"genres": ["Comedy", "Sci-Fi"]}},
            "top_k": 50,
            "model": "stable",
            "explain": False,
            "request_id": "abc",
        },
    },
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
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["item_id", "score"],
                "properties": {
                    "item_id": {"type": "string"},
                    "score": {"type": "number", "minimum": 0, "maximum": 1, "description": "Click probability"},
                    "explanation": {
                        "type": "array",
                        "description": "With `explain`: what each field adds to the best items' scores",
                        "items": {
                            "type": "object",
                            "properties": {"field": {"type": "string"}, "effect": {"type": "number"}},
                        },
                    },
                },
            },
        },
        "degraded": {"type": "array", "items": {"type": "string"}, "description": "Why the answer is less than full"},
        "missing": {
            "type": "object",
            "properties": {"user": {"type": "boolean"}, "items": {"type": "array", "items": {"type": "string"}}},
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
        "errors": {
            "type": "array",
            "maxItems": 10,
            "items": {
                "type": "object",
                "properties": {"location": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}

REQUEST_HEADERS = {
    "X-Request-ID": ("Sent back, and used in the log; a new one where it is absent or unfit", {"type": "string"}),
    "X-Request-Timeout-Ms": (
        "Milliseconds after which the answer is no longer wanted; then 504",
        {"type": "number", "exclusiveMinimum": 0},
    ),
    "X-API-Key": ("Required when the service has keys", {"type": "string"}),
}
RESPONSE_HEADERS = {
    "X-Request-ID": "As sent, or made up",
    "X-Model-Version": "The version that answered",
    "Server-Timing": "Milliseconds per stage: " + ", ".join(STAGES),
}


def document_rank(app: FastAPI) -> None:
    """Add POST /rank, which is served outside FastAPI's routing, to the application's OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        (_,), components = msgspec.json.schema_components([RankBody], ref_template=REF + "{name}")
        request = components.pop("RankBody")
        request["title"] = "RankRequest"
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update({"RankRequest": request, "Ranking": RANKING, "Problem": PROBLEM, **components})
        document.setdefault("paths", {})["/rank"] = {"post": _operation()}
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _operation() -> dict[str, Any]:
    return {
        "tags": ["rank"],
        "summary": "Rank candidates",
        "description": DESCRIPTION,
        "operationId": "rank",
        "parameters": [
            {"name": name, "in": "header", "required": False, "description": text, "schema": schema}
            for name, (text, schema) in REQUEST_HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": REF + "RankRequest"}, "examples": EXAMPLES}},
        },
        "responses": {
            "200": {
                "description": "The candidates, best first",
                "headers": {
                    name: {"description": text, "schema": {"type": "string"}} for name, text in RESPONSE_HEADERS.items()
                },
                "content": {"application/json": {"schema": {"$ref": REF + "Ranking"}}},
            },
            **{
                str(status): {
                    "description": HTTPStatus(status).phrase,
                    "content": {MEDIA_TYPE: {"schema": {"$ref": REF + "Problem"}}},
                }
                for status in sorted({error.status for error in TYPES})
            },
        },
    }
