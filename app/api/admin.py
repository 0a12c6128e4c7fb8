"""POST /admin/promote, /admin/rollback and /admin/refuse: the model store over HTTP, for the holder of the admin key.

A request holds a version number and nothing else: no paths, no labels, no force. A promotion runs the gate as
`ctr promote` does. One action is at work at a time, over all workers, and each is logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import structlog
from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import APIKeyHeader

from app.api.admin_actions import Admin, AdminResult
from app.api.content_coding import decoded
from app.api.problems import TYPES, documented_problems
from app.api.schemas import whole
from app.errors import BodyTooLarge, InvalidRequest, NotJson, RequestError, Unauthorized

log = structlog.get_logger(__name__)

PATHS = frozenset({"/admin/promote", "/admin/rollback", "/admin/refuse"})
MAX_BODY_BYTES = 1000


class VersionBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request that names a version."""

    version: Annotated[int, msgspec.Meta(ge=1, lt=10**15)]


class OptionalVersionBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request that may name a version."""

    version: Annotated[int, msgspec.Meta(ge=1, lt=10**15)] | None = None


_admin_key = APIKeyHeader(name="X-Admin-Key", scheme_name="AdminKey", auto_error=False, description="CTR_ADMIN_KEY")


async def admin_of(request: Request, key: Annotated[str | None, Security(_admin_key)] = None) -> Admin:
    """Return the service's admin for a request with its key. Raises Unauthorized before the body is read."""
    admin: Admin = request.app.state.service.admin
    if not admin.knows(key or request.headers.get("x-api-key", "")):
        admin.metrics.admin_keys_refused.inc()
        log.warning("admin_key_refused", route=request.url.path, **_client_of(request))
        raise Unauthorized("send the admin key in the X-Admin-Key header")
    return admin


KnownAdmin = Annotated[Admin, Depends(admin_of)]


def _documented(body: type[msgspec.Struct], required: bool) -> dict[str, Any]:
    """Return what OpenAPI says of the body, which FastAPI does not parse."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}
    return {"requestBody": {"required": required, "content": content}}


PROBLEMS = documented_problems(
    {
        400: "Not JSON",
        401: "Not the admin key",
        404: "No such version",
        409: "Another action is at work, or it cannot be done as things are",
        413: f"More than {MAX_BODY_BYTES} bytes",
        415: "A Content-Encoding other than gzip",
        422: "The version is refused, or the body does not fit",
        503: "It could not be carried out; nothing was changed",
    }
)
router = APIRouter(prefix="/admin", tags=["admin"], responses=PROBLEMS)


@router.post("/promote", openapi_extra=_documented(VersionBody, True))
async def promote(request: Request, admin: KnownAdmin) -> AdminResult:
    """Make a version stable once it has passed the gate, which takes seconds. A refused one stays refused."""
    return await _run_action(request, admin, admin.promote, VersionBody)


@router.post("/rollback", openapi_extra=_documented(OptionalVersionBody, False))
async def rollback(request: Request, admin: KnownAdmin) -> AdminResult:
    """Return to the version that was stable before, or to one of those before it."""
    return await _run_action(request, admin, admin.rollback, OptionalVersionBody)


@router.post("/refuse", openapi_extra=_documented(VersionBody, True))
async def refuse(request: Request, admin: KnownAdmin) -> AdminResult:
    """Refuse a version: it is canary and shadow no more, and stays refused until `ctr promote N --force`."""
    return await _run_action(request, admin, admin.refuse, VersionBody)


async def _run_action(
    request: Request,
    admin: Admin,
    act: Callable[[Any], AdminResult],
    body: type[VersionBody] | type[OptionalVersionBody],
) -> AdminResult:
    """Parse the body, act on a thread, and count and log the outcome."""
    action, outcome = request.url.path.rpartition("/")[2], "internal-error"
    version: int | None = None
    try:
        raw = decoded(await request.body(), dict(request.scope["headers"]), MAX_BODY_BYTES)
        version = parse_body(raw, body).version
        result = await asyncio.to_thread(act, version)
        version, outcome = result.version, "done"
        return result
    except RequestError as error:
        outcome = TYPES[type(error)]
        raise
    finally:
        admin.metrics.admin_actions.labels(action, outcome).inc()
        log.warning("admin_action", action=action, version=version, outcome=outcome, **_client_of(request))


def parse_body(raw: bytes, body: type[VersionBody] | type[OptionalVersionBody]) -> VersionBody | OptionalVersionBody:
    """Parse the body of an admin request. Raises NotJson, InvalidRequest or BodyTooLarge if it does not fit."""
    if len(raw) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"at most {MAX_BODY_BYTES} bytes are read")
    if not raw and body is OptionalVersionBody:
        return OptionalVersionBody()
    try:
        document = msgspec.json.decode(raw)
        if isinstance(document, dict) and "version" in document:
            document["version"] = whole(document["version"])
        return msgspec.convert(document, type=body)
    except msgspec.ValidationError as error:
        message = str(error).replace("`", "'")
        raise InvalidRequest(message, errors=[("body", message)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotJson('expected {"version": N}') from None


def _client_of(request: Request) -> dict[str, str]:
    return {"client": request.client.host if request.client else ""}
