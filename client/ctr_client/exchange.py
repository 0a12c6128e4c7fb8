"""Requests and answers as both clients make and read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from ctr_client.answers import Feedback, FeedbackResult, Health, Version
from ctr_client.errors import CtrClientError, TimedOut, Unreachable, error_of

USER_AGENT = "ctr-client/0.1.0"
MOST_FEEDBACK = 1000
"""Records in one request."""


def headers_of(api_key: str | None) -> dict[str, str]:
    """Return the headers of every request."""
    return {"User-Agent": USER_AGENT, **({"X-API-Key": api_key} if api_key else {})}


def rank_body(user_id: str | int | None, item_ids: Sequence[str | int], options: Mapping[str, Any]) -> bytes:
    """Return the body of POST /rank; options that are None are left out."""
    body = {"user_id": user_id, "item_ids": list(item_ids), **options}
    return json.dumps({name: value for name, value in body.items() if value is not None}, allow_nan=False).encode()


def timeout_headers(left_s: float) -> dict[str, str]:
    """Return the header that tells the service how long the caller waits."""
    return {"X-Request-Timeout-Ms": f"{max(left_s * 1000, 0.001):.3f}"}


def content_of(response: httpx.Response) -> Any:
    """Return the JSON of an answer. Raises the error that it stands for."""
    try:
        document = response.json()
    except ValueError:
        document = {}
    if response.is_success and document != {}:
        return document
    retry_after = response.headers.get("retry-after", "")
    details = document if isinstance(document, dict) else {}
    details.setdefault("request_id", response.headers.get("x-request-id"))
    raise error_of(response.status_code, details, float(retry_after) if retry_after.isdecimal() else 0.0)


def error_from(error: httpx.HTTPError) -> CtrClientError:
    """Return this package's error for one of httpx."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return TimedOut("no answer in time")
    return Unreachable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def health_of(response: httpx.Response) -> Health:
    """Read GET /health, which is a 503 where the service is unhealthy."""
    try:
        document = response.json()
        return Health(document["status"], tuple(document["reasons"]), document)
    except (ValueError, KeyError, TypeError):
        content_of(response)
        raise Unreachable(f"what answers is no ctr-serving (HTTP {response.status_code})") from None


def versions_of(document: Mapping[str, Any]) -> list[Version]:
    """Read GET /models."""
    return [
        Version(one["version"], tuple(one["labels"]), tuple(one["live"]), one["metrics"], one)
        for one in document["versions"]
    ]


def feedback_bodies(records: Iterable[Feedback]) -> list[bytes]:
    """Return the bodies of POST /feedback, as many as it takes."""
    documents = [record.to_json() for record in records]
    parts = [documents[start : start + MOST_FEEDBACK] for start in range(0, len(documents), MOST_FEEDBACK)]
    return [json.dumps(part, allow_nan=False).encode() for part in parts]


def feedback_result(documents: Sequence[Mapping[str, Any]]) -> FeedbackResult:
    """Add the answers of several requests up."""
    errors = [
        (MOST_FEEDBACK * number + one["index"], one["message"])
        for number, document in enumerate(documents)
        for one in document["errors"]
    ]
    accepted = sum(document["accepted"] for document in documents)
    return FeedbackResult(accepted, sum(document["rejected"] for document in documents), tuple(errors))
