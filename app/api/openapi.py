"""The OpenAPI document: POST /rank, keys and problems, which FastAPI does not know of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Response

from app.api.headers import MIN_TIMEOUT_MS
from app.api.kept_answers import KeptAnswers
from app.api.middleware import OPEN_PATHS
from app.api.openapi_schemas import REF, referred, schemas
from app.api.problems import MEDIA_TYPE, PROBLEM_CONTENT, TYPES
from app.errors import ActionFailed, Conflict, InvalidRequest, NotFound, Unauthorized, VersionRefused
from app.observability.metrics import STAGES

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
        parts = document.setdefault("components", {})
        parts.setdefault("schemas", {}).update(schemas())
        parts.setdefault("securitySchemes", {})["ApiKey"] = API_KEY
        document.setdefault("paths", {})["/rank"] = {"post": _operation()}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _complete(operation, needs_key=path not in open_paths, keys=keys)
        parts["schemas"] = referred(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def serve_openapi(app: FastAPI) -> None:
    """Serve the OpenAPI document, which is made when it is first asked for: the routes stay as they are.

    It takes 40 milliseconds, so a thread makes it.
    """
    answers: KeptAnswers[bytes] = KeptAnswers()
    document: bytes | None = None

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        nonlocal document
        if document is None:
            document = await answers.get("", lambda: msgspec.json.encode(app.openapi()))
        return Response(document, media_type="application/json")


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
    for status, response in responses.items():
        if MEDIA_TYPE in response.get("content", {}) and status in ERROR_HEADERS:
            response.setdefault("headers", _headers(ERROR_HEADERS[status]))
    responses["default"] = {"description": "Any other problem, say of the connection", "content": PROBLEM_CONTENT}


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
                    "content": PROBLEM_CONTENT,
                }
                for status, of_status in sorted(titles.items())
            },
        },
    }


def _headers(texts: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in texts.items()}
