"""The OpenAPI document: POST /rank, keys and problems, which FastAPI does not know of.

The request's schema is generated from the types that the parser accepts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import msgspec
from fastapi import FastAPI, Response

from app.api.headers import MIN_TIMEOUT_MS
from app.api.middleware import OPEN_PATHS
from app.api.problems import MEDIA_TYPE, TYPES, URN
from app.api.schemas import RankBody
from app.errors import ActionFailed, Conflict, InvalidRequest, NotFound, Unauthorized, VersionRefused
from app.observability.metrics import STAGES
from app.ranking.explain import MAX_EXPLAINED, Explanation

REF = "#/components/schemas/"

DESCRIPTION = """Score candidate items for one user and sort them by click probability, highest first.

Only `item_ids` is required. Ids are strings; JSON integers are read as decimal strings. Without a `user_id`, or with
null or "", the request is a guest's. An unknown id is scored from defaults and named in `missing`; a duplicate is
ranked once. `user_features` and `item_features` override what is stored, for this request; what no field reads is named
in `ignored`. `model` is a label or a version number. An answer that is less than full is a 200 that says why in
`degraded`. The body is JSON in UTF-8, whatever Content-Type says, plain or with Content-Encoding: gzip."""

EXAMPLES = {
    "ids": {"summary": "Ids alone", "value": {"user_id": "42", "item_ids": ["10", "20", "30"]}},
    "guest": {"summary": "A guest", "value": {"user_id": None, "item_ids": ["10", "20"], "context": {"hour": 21}}},
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
                        "$ref": REF + "Explanation",
                        "description": f"With `explain`, of the {MAX_EXPLAINED} best: why the item got its score",
                    },
                },
            },
        },
        "degraded": {"type": "array", "items": {"type": "string"}, "description": "Why the answer is less than full"},
        "missing": {
            "type": "object",
            "properties": {"user": {"type": "boolean"}, "items": {"type": "array", "items": {"type": "string"}}},
        },
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
        {"type": "number", "minimum": MIN_TIMEOUT_MS},
    ),
}
RESPONSE_HEADERS = {
    "X-Request-ID": "As sent, or made up",
    "X-Model-Version": "The version that answered",
    "Server-Timing": "Milliseconds per stage: " + ", ".join(STAGES),
}
ERROR_HEADERS = {
    "401": {"WWW-Authenticate": "Names the header that a key is sent in"},
    "415": {"Accept-Encoding": "The codings that are read"},
    "429": {"Retry-After": "Seconds"},
    "503": {"Retry-After": "Seconds"},
}
NOT_OF_RANK = (NotFound, Conflict, VersionRefused, ActionFailed)
"""Errors of other routes."""
PROBLEM_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": REF + "Problem"}}}
API_KEY = {
    "type": "apiKey",
    "in": "header",
    "name": "X-API-Key",
    "description": "One of CTR_API_KEYS, if there are any",
}


def complete_openapi(app: FastAPI, *, keys: bool = False, open_paths: Collection[str] = OPEN_PATHS) -> None:
    """Complete the application's OpenAPI document.

    Args:
        keys: whether the service has keys, so that routes that are not open to all require one.
        open_paths: the routes that are open to all.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, components = msgspec.json.schema_components([RankBody, Explanation], ref_template=REF + "{name}")
        request = components.pop("RankBody")
        request["title"] = "RankRequest"
        parts = document.setdefault("components", {})
        schemas = parts.setdefault("schemas", {})
        schemas.update({"RankRequest": request, "Ranking": RANKING, "Problem": PROBLEM, **components})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        parts.setdefault("securitySchemes", {})["ApiKey"] = API_KEY
        document.setdefault("paths", {})["/rank"] = {"post": _operation()}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _complete(operation, needs_key=path not in open_paths, keys=keys)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def serve_openapi(app: FastAPI) -> None:
    """Serve the OpenAPI document, which is made when it is first asked for: the routes stay as they are."""

    @cache
    def document() -> bytes:
        return msgspec.json.encode(app.openapi())

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(document(), media_type="application/json")


def _complete(operation: dict[str, Any], *, needs_key: bool, keys: bool) -> None:
    """Add to an operation what `Edge` and the handlers of problems do for every route."""
    responses = operation["responses"]
    if "422" in responses:
        responses["422"] = {"description": InvalidRequest.title, "content": PROBLEM_CONTENT} | (
            responses["422"] if MEDIA_TYPE in responses["422"].get("content", {}) else {}
        )
    if needs_key and "security" not in operation:  # those of the admin name a key of their own
        operation["security"] = [{"ApiKey": []}] if keys else [{}, {"ApiKey": []}]
        responses.setdefault("401", {"description": Unauthorized.title, "content": PROBLEM_CONTENT})


def _operation() -> dict[str, Any]:
    """Return POST /rank."""
    titles: dict[int, list[str]] = {}
    for error in TYPES:
        if error not in NOT_OF_RANK:
            titles.setdefault(error.status, []).append(error.title)
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
                "headers": _headers(RESPONSE_HEADERS),
                "content": {"application/json": {"schema": {"$ref": REF + "Ranking"}}},
            },
            **{
                str(status): {
                    "description": "; ".join(of_status),
                    "headers": _headers(ERROR_HEADERS.get(str(status), {})),
                    "content": PROBLEM_CONTENT,
                }
                for status, of_status in sorted(titles.items())
            },
        },
    }


def _headers(texts: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in texts.items()}
