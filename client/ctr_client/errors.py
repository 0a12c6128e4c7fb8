"""What a call may raise.

CtrClientError
├── Refused       the request does not fit, or the key is not known: sending it again does not help
├── Unavailable   503 or 429, once retries are over: try again after `retry_after_s`
├── TimedOut      no answer in `timeout_s`, or the service gave up for it (504)
└── Unreachable   no connection, or one that broke
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class CtrClientError(Exception):
    """The root of this package's errors.

    Attributes:
        status: of the answer; None where there was none.
        problem: the word for the kind of the problem, such as `invalid-request`; empty where there is none.
        request_id: by which the service's log has the request.
    """

    def __init__(self, message: str, *, status: int | None = None, problem: str = "", request_id: str | None = None):
        super().__init__(message)
        self.status = status
        self.problem = problem
        self.request_id = request_id


class Refused(CtrClientError):
    """The service does not take this request; `errors` holds (place, message) pairs."""

    errors: list[tuple[str, str]]


class Unavailable(CtrClientError):
    """The service has too much to do, or no model yet; nothing was done."""

    retry_after_s: float = 0.0


class TimedOut(CtrClientError):
    """There was no answer in time."""


class Unreachable(CtrClientError):
    """There is no connection to the service, or it broke."""


def error_of(status: int, document: Mapping[str, Any], retry_after_s: float) -> CtrClientError:
    """Return the error that an answer stands for.

    Args:
        document: the body, a problem document (RFC 9457) if the service wrote it.
    """
    kind: type[CtrClientError] = Refused
    if status in (429, 502, 503):
        kind = Unavailable
    elif status == 504:
        kind = TimedOut
    detail = str(document.get("detail") or document.get("title") or f"HTTP {status}")
    error = kind(
        f"{detail} (HTTP {status})",
        status=status,
        problem=str(document.get("type", "")).rpartition(":")[2],
        request_id=document.get("request_id"),
    )
    if isinstance(error, Unavailable):
        error.retry_after_s = retry_after_s
    if isinstance(error, Refused):
        error.errors = [(str(one.get("location")), str(one.get("message"))) for one in document.get("errors") or []]
    return error
