"""Turns errors into `application/problem+json` responses (RFC 9457); no other place does.

A problem has `type, title, status, detail, request_id` and, where a request does not fit, `errors[]`: at most ten
`{"location", "message"}`, never the input. No body is larger than `MAX_BYTES`. `type` is `urn:ctr-serving:problem:`
and a word of this table, which stays the same from release to release:

    not-http                 400  what arrived is no HTTP/1.1 request
    not-json                 400  the body is not JSON
    unauthorized             401  no valid X-API-Key
    not-found                404
    method-not-allowed       405
    head-too-slow            408  the headers did not arrive in time
    body-too-slow            408  the body did not arrive in time
    conflict                 409  another admin action is at work, or the version is stable
    body-too-large           413
    unsupported-media        415  the body has a coding that is not read; Accept-Encoding says which are
    invalid-request          422  the body or a header does not fit; `errors` says where
    unencodable-value        422  a feature value of the request fits no slot of the schema
    version-refused          422  by the gate, or since it was live; `errors` names the checks
    rate-limited             429  with Retry-After; the key has asked for more than its rate
    head-too-large           431
    overloaded               503  with Retry-After
    no-model                 503  with Retry-After; nothing is live yet
    action-failed            503  an admin action could not be carried out; nothing was changed
    deadline-passed          504
    internal-error           500  our fault; the log has the rest, found by `request_id`

Any other HTTP error has the type `about:blank`, as the RFC says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.api.content_coding import ACCEPTED
from app.errors import (
    MAX_REPORTED,
    ActionFailed,
    BodyTooLarge,
    BodyTooSlow,
    Conflict,
    DeadlinePassed,
    EncodingError,
    HeadTooLarge,
    HeadTooSlow,
    InvalidRequest,
    NoModel,
    NotFound,
    NotHttp,
    NotJson,
    Overloaded,
    RateLimited,
    RequestError,
    Unauthorized,
    UnsupportedMedia,
    VersionRefused,
)

URN = "urn:ctr-serving:problem:"
MEDIA_TYPE = "application/problem+json"
MAX_BYTES = 4096
MAX_DETAIL, MAX_LOCATION, MAX_MESSAGE = 300, 96, 200

TYPES: dict[type[RequestError], str] = {
    NotHttp: "not-http",
    NotJson: "not-json",
    Unauthorized: "unauthorized",
    NotFound: "not-found",
    HeadTooSlow: "head-too-slow",
    BodyTooSlow: "body-too-slow",
    Conflict: "conflict",
    BodyTooLarge: "body-too-large",
    UnsupportedMedia: "unsupported-media",
    InvalidRequest: "invalid-request",
    EncodingError: "unencodable-value",
    VersionRefused: "version-refused",
    RateLimited: "rate-limited",
    HeadTooLarge: "head-too-large",
    Overloaded: "overloaded",
    NoModel: "no-model",
    ActionFailed: "action-failed",
    DeadlinePassed: "deadline-passed",
}
PROBLEM_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
"""What OpenAPI says of a problem's body."""
BY_STATUS = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large", 500: "internal-error"}

log = structlog.get_logger(__name__)


def documented_problems(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of a route's problems, whose descriptions are given by status."""
    return {status: {"content": PROBLEM_CONTENT, "description": text} for status, text in descriptions.items()}


def problem_response(error: RequestError, request_id: str) -> Response:
    """Return the response for an error that a client can cause."""
    name = next((TYPES[kind] for kind in type(error).__mro__ if kind in TYPES), None)
    headers = {}
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(retry_after_s)))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'ApiKey header="X-API-Key"'
    if isinstance(error, UnsupportedMedia):
        headers["Accept-Encoding"] = ACCEPTED
    return _problem(name, error.status, error.title, str(error), request_id, error.errors, headers)


def internal_problem(request_id: str) -> Response:
    """Return the response for an unexpected error. It says nothing about the error, which the caller logs."""
    return _problem(
        "internal-error", 500, "Internal error", "an unexpected error, logged under this request_id", request_id
    )


def install_problem_handlers(app: FastAPI, *, docs: bool = True) -> None:
    """Have FastAPI answer every error of its own routing and validation with a problem.

    `docs` says whether there is a page that lists the routes.
    Starlette raises an unexpected error again after it was answered and logged here; `state.answered` tells `Edge`.
    """

    @app.exception_handler(RequestError)
    async def _request_error(request: Request, error: RequestError) -> Response:
        return problem_response(error, _request_id(request))

    @app.exception_handler(RequestValidationError)
    async def _validation_error(request: Request, error: RequestValidationError) -> Response:
        errors = [
            (".".join(str(part) for part in detail["loc"]), str(detail["msg"]))
            for detail in error.errors()[:MAX_REPORTED]
        ]
        return problem_response(InvalidRequest(errors=errors), _request_id(request))

    @app.exception_handler(HTTPException)
    async def _http_error(request: Request, error: HTTPException) -> Response:
        title = HTTPStatus(error.status_code).phrase
        detail = str(error.detail)
        if error.status_code == 404 and detail == title:
            detail = "no such route; GET /docs lists them all" if docs else "no such route"
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = headers.get("Allow", "").replace("GET", "GET, HEAD")
            detail = f"this route takes {headers['Allow']}"
        return _problem(
            BY_STATUS.get(error.status_code),
            error.status_code,
            title,
            detail,
            _request_id(request),
            headers=headers,
        )

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        log.error("unexpected_error", route=request.url.path[:200], exc_info=error)
        request.state.answered = True
        return internal_problem(_request_id(request))


def _request_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


def _problem(
    name: str | None,
    status: int,
    title: str,
    detail: str,
    request_id: str,
    errors: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    document: dict[str, Any] = {
        "type": URN + name if name else "about:blank",
        "title": title,
        "status": status,
        "detail": _truncate(detail, MAX_DETAIL),
        "request_id": _truncate(request_id, 128),
    }
    if errors:
        document["errors"] = [
            {"location": _truncate(location, MAX_LOCATION), "message": _truncate(message, MAX_MESSAGE)}
            for location, message in errors[:MAX_REPORTED]
        ]
    body = msgspec.json.encode(document)
    while len(body) > MAX_BYTES and document.get("errors"):  # escapes and non-ASCII text take up to six bytes each
        document["errors"].pop()
        body = msgspec.json.encode(document)
    return Response(body, status, headers, MEDIA_TYPE)


def _truncate(text: str, limit: int) -> str:
    """Cut a text to `limit` characters, and replace those that UTF-8 cannot hold."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.encode("utf-8", "replace").decode()
