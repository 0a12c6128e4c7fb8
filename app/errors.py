"""Every error that this project raises on purpose.

    CtrError
    ├── ConfigError              a setting, a command line or a feature schema is wrong; says what to change
    │   └── SchemaError          features.yaml: names the field and the line
    ├── DataError                training data cannot be read or has too many bad rows; names the rows
    ├── ArtifactError            a published version is damaged, foreign or unfit; the live one stays
    │   └── NotPublished         a retraining ended well and changed nothing: `ctr retrain` ends with status 3
    ├── StoreError               the feature store did not answer in time, or not at all
    └── RequestError             what a client can cause; each knows its HTTP status and a safe title
        ├── NotHttp              400  what arrived is no HTTP/1.1 request
        ├── NotJson              400
        ├── Unauthorized         401
        ├── NotFound             404
        ├── HeadTooSlow          408  the head did not arrive in time
        ├── BodyTooSlow          408  the body did not arrive in time
        ├── Conflict             409  an admin action that cannot be done as things are
        ├── BodyTooLarge         413
        ├── UnsupportedMedia     415  the body has a coding that is not read
        ├── InvalidRequest       422  carries up to ten (location, message) pairs, never the input
        │   └── EncodingError    a raw feature value that no slot can hold: the one error encoding raises
        ├── VersionRefused       422  by the gate or since; carries the checks it did not pass
        ├── RateLimited          429  with Retry-After
        ├── HeadTooLarge         431
        ├── Overloaded           503  with Retry-After
        ├── NoModel              503  nothing is live yet
        ├── ActionFailed         503  an admin action that could not be carried out
        └── DeadlinePassed       504

The core raises these; `app.api.problems` is the one place that turns them into responses.
"""

from __future__ import annotations

MAX_REPORTED = 10
MAX_DETAIL = 300


class CtrError(Exception):
    """The root of the tree. `str(error)` may be shown to a user."""


class ConfigError(CtrError):
    """A setting, a command line or a file of the user's is wrong; the message says what to change."""


class SchemaError(ConfigError):
    """A feature schema is wrong; the message names the field and the line."""


class DataError(CtrError):
    """Training data cannot be read or has too many bad rows; the message names the rows."""


class ArtifactError(CtrError):
    """A published version cannot serve; `reason` is one short word for metrics (`hash`, `golden`, `format`...)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotPublished(ArtifactError):
    """A retraining ended well and decided to change nothing."""


class StoreError(CtrError):
    """The feature store did not answer in time, or not at all."""


class RequestError(CtrError):
    """An error that a client can cause; each class knows its HTTP status and a title that is safe to show.

    `errors` holds up to `MAX_REPORTED` (location, message) pairs, never the input.
    """

    status = 400
    title = "Bad request"

    def __init__(self, detail: str = "", *, errors: list[tuple[str, str]] | None = None) -> None:
        detail = detail or self.title
        super().__init__(detail if len(detail) <= MAX_DETAIL else detail[: MAX_DETAIL - 1] + "…")
        self.errors = (errors or [])[:MAX_REPORTED]


class NotHttp(RequestError):
    """What arrived is not an HTTP/1.1 request."""

    status = 400
    title = "Not an HTTP/1.1 request"


class NotJson(RequestError):
    """The body is not one JSON document in UTF-8."""

    status = 400
    title = "The body is not JSON"


class Unauthorized(RequestError):
    """The request has none of the keys that its path asks for."""

    status = 401
    title = "A valid API key is required"


class NotFound(RequestError):
    """The request names something that is not there."""

    status = 404
    title = "Not found"


class HeadTooSlow(RequestError):
    """The head of the request was not complete in time."""

    status = 408
    title = "The head of the request did not arrive in time"


class BodyTooSlow(RequestError):
    """The body was not complete in time."""

    status = 408
    title = "The body did not arrive in time"


class Conflict(RequestError):
    """An admin action cannot be done as things are."""

    status = 409
    title = "It cannot be done as things are"


class BodyTooLarge(RequestError):
    """The body is larger than the service reads."""

    status = 413
    title = "The body is too large"


class UnsupportedMedia(RequestError):
    """The body has a coding or a form that the service does not read."""

    status = 415
    title = "The body's coding is not supported"


class InvalidRequest(RequestError):
    """The body or a header does not have the shape or the values that are accepted."""

    status = 422
    title = "The request is not valid"


class EncodingError(InvalidRequest):
    """A raw feature value fits no slot of the schema."""

    title = "A feature value cannot be encoded"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}", errors=[(field, message)])
        self.field = field
        self.message = message


class VersionRefused(RequestError):
    """The gate refused the version, or it was withdrawn since; `errors` names the checks that failed."""

    status = 422
    title = "The version is refused"


class RateLimited(RequestError):
    """The key has asked for more than CTR_KEY_RATE."""

    status = 429
    title = "Too many requests of this key"
    retry_after_s = 1
    """Seconds after which the next request is let through."""


class HeadTooLarge(RequestError):
    """The head of the request is larger than the service reads."""

    status = 431
    title = "The head of the request is too large"


class Overloaded(RequestError):
    """More requests are at work than the service admits."""

    status = 503
    title = "Overloaded, try again later"
    retry_after_s = 1


class NoModel(RequestError):
    """No version is live yet."""

    status = 503
    title = "No model is live"
    retry_after_s = 1


class ActionFailed(RequestError):
    """An admin action could not be carried out, and nothing was changed."""

    status = 503
    title = "The action could not be carried out"


class DeadlinePassed(RequestError):
    """The time in which the client wanted an answer is over."""

    status = 504
    title = "The deadline passed"
