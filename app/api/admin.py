"""POST /admin/promote, /admin/rollback and /admin/refuse: the model store from afar, for whoever has the admin key.

A version number goes in and nothing else: no paths, no labels, no force. A promotion runs the gate as `ctr promote`
does; one action is at work at a time, over all workers. Every action is a line of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Protocol

import msgspec
import structlog
from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, Field

from app.api.problems import MEDIA_TYPE, TYPES
from app.errors import (
    ActionFailed,
    ArtifactError,
    BodyTooLarge,
    ConfigError,
    Conflict,
    InvalidRequest,
    NotFound,
    NotJson,
    RequestError,
    Unauthorized,
    VersionRefused,
)
from app.observability.metrics import Metrics
from app.publishing.promote import Promotion, check_not_refused
from app.publishing.refuse import refuse as refuse_version
from app.publishing.rollback import Rollback
from app.registry.gate.gate_report import read_report
from app.registry.store.model_store import ModelStore

log = structlog.get_logger(__name__)

PATHS = frozenset({"/admin/promote", "/admin/rollback", "/admin/refuse"})
MAX_BODY_BYTES = 1000


class Target(msgspec.Struct, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, lt=10**15)]


class AnyTarget(msgspec.Struct, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, lt=10**15)] | None = None


class Done(BaseModel):
    model: str
    version: int = Field(description="That was promoted, returned to, or refused")
    labels: list[str] = Field(description="It has now, or, refused, has lost")
    serving: dict[str, Any] = Field(description="serving.json: workers follow it within CTR_POLL_S")
    gate: dict[str, Any] | None = Field(None, description="Of a promotion: what the checks found")


class PublishingActions(Protocol):
    """Carries out what takes seconds and gigabytes: `app.publishing.isolated_actions.IsolatedActions` is one."""

    def promote(self, version: int) -> Promotion:
        """Gate a version and make it stable."""
        ...

    def roll_back(self, version: int | None = None) -> Rollback:
        """Make an earlier version stable again."""
        ...


class Admin:
    """What the routes do. Blocking; call it on a thread."""

    def __init__(self, key: str, store: ModelStore, actions: PublishingActions, metrics: Metrics) -> None:
        self._digest = hashlib.sha256(key.encode()).digest()
        self._store = store
        self._actions = actions
        self.metrics = metrics

    def knows(self, key: str) -> bool:
        """A header's value, which is text of its bytes. Takes as long whatever it is: what is compared are hashes."""
        return hmac.compare_digest(hashlib.sha256(key.encode("latin-1", "replace")).digest(), self._digest)

    def promote(self, version: int) -> Done:
        """Make a version stable once it has passed the gate.

        Raises:
            NotFound, Conflict, VersionRefused, ActionFailed: as `_turn` says.
        """
        with self._turn(version):
            check_not_refused(self._store, version)  # the process would say so too, seconds later
            promotion = self._actions.promote(version)
        return Done(
            model=promotion.model,
            version=version,
            labels=["stable"],
            serving=msgspec.to_builtins(promotion.serving),
            gate=msgspec.to_builtins(promotion.gate),
        )

    def rollback(self, version: int | None) -> Done:
        """Return to the version that was stable before, or to this one. Raises what `promote` raises."""
        with self._turn(version):
            rollback = self._actions.roll_back(version)
        return Done(
            model=rollback.model,
            version=rollback.version,
            labels=["stable"],
            serving=msgspec.to_builtins(rollback.serving),
        )

    def refuse(self, version: int) -> Done:
        """Refuse a version and take its labels away. Raises what `promote` raises."""
        with self._turn(version):
            refusal = refuse_version(self._store, version)
        return Done(
            model=refusal.model,
            version=version,
            labels=refusal.labels,
            serving=msgspec.to_builtins(refusal.serving),
        )

    @contextlib.contextmanager
    def _turn(self, version: int | None) -> Iterator[None]:
        """One action at a time; what goes wrong in it becomes a problem."""
        try:
            with self._store.exclusive_action():
                if version is not None and version not in self._store.versions():
                    raise NotFound(f"there is no version {version}; GET /models lists them")
                yield
        except ConfigError as error:
            raise Conflict(str(error)) from error
        except ArtifactError as error:
            if error.reason in ("busy", "stable"):
                raise Conflict(str(error)) from error
            report = read_report(self._store.path(version)) if version is not None else None
            if report is None or report.refusal is None:
                raise ActionFailed(str(error)) from error
            failed = [(check.name, f"{check.reason}: {check.detail}") for check in report.checks if not check.passed]
            raise VersionRefused(str(error), errors=failed) from error


_admin_key = APIKeyHeader(name="X-Admin-Key", auto_error=False, description="CTR_ADMIN_KEY")


def admin_of(request: Request, key: Annotated[str | None, Security(_admin_key)] = None) -> Admin:
    """The service's, for a request with the right key. Raises Unauthorized, before the body is read."""
    admin: Admin = request.app.state.service.admin
    if not admin.knows(key or request.headers.get("x-api-key", "")):
        admin.metrics.admin_keys_refused.inc()
        log.warning("admin_key_refused", route=request.url.path, **_whose(request))
        raise Unauthorized("send the admin key in the X-Admin-Key header")
    return admin


Known = Annotated[Admin, Depends(admin_of)]


def _documented(target: type[msgspec.Struct], required: bool) -> dict[str, Any]:
    content = {"application/json": {"schema": msgspec.json.schema(target)["$defs"][target.__name__]}}
    return {"requestBody": {"required": required, "content": content}}


_problem = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: _problem | {"description": "Not JSON"},
    401: _problem | {"description": "Not the admin key"},
    404: _problem | {"description": "No such version"},
    409: _problem | {"description": "Another action is at work, or it cannot be done as things are"},
    422: _problem | {"description": "The version is refused, or the body does not fit"},
    503: _problem | {"description": "It could not be carried out; nothing was changed"},
}
router = APIRouter(prefix="/admin", tags=["admin"], responses=PROBLEMS)


@router.post("/promote", openapi_extra=_documented(Target, True))
async def promote(request: Request, admin: Known) -> Done:
    """Make a version stable once it has passed the gate, which takes seconds. A refused one stays refused."""
    return await _act(request, admin, admin.promote, Target)


@router.post("/rollback", openapi_extra=_documented(AnyTarget, False))
async def rollback(request: Request, admin: Known) -> Done:
    """Return to the version that was stable before, or to one of those before it."""
    return await _act(request, admin, admin.rollback, AnyTarget)


@router.post("/refuse", openapi_extra=_documented(Target, True))
async def refuse(request: Request, admin: Known) -> Done:
    """Refuse a version: it is canary and shadow no more, and stays refused until `ctr promote N --force`."""
    return await _act(request, admin, admin.refuse, Target)


async def _act(
    request: Request, admin: Admin, act: Callable[[Any], Done], target: type[Target] | type[AnyTarget]
) -> Done:
    action, outcome = request.url.path.rpartition("/")[2], "internal-error"
    version: int | None = None
    try:
        version = parsed(await request.body(), target).version
        done = await asyncio.to_thread(act, version)
        version, outcome = done.version, "done"
        return done
    except RequestError as error:
        outcome = TYPES[type(error)]
        raise
    finally:
        admin.metrics.admin_actions.labels(action, outcome).inc()
        log.warning("admin_action", action=action, version=version, outcome=outcome, **_whose(request))


def parsed(raw: bytes, target: type[Target] | type[AnyTarget]) -> Target | AnyTarget:
    """Raises NotJson, InvalidRequest, BodyTooLarge."""
    if len(raw) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"at most {MAX_BODY_BYTES} bytes are read")
    if not raw and target is AnyTarget:
        return AnyTarget()
    try:
        return msgspec.convert(msgspec.json.decode(raw), type=target)
    except msgspec.ValidationError as error:
        message = str(error).replace("`", "'")
        raise InvalidRequest(message, errors=[("body", message)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotJson('expected {"version": N}') from None


def _whose(request: Request) -> dict[str, str]:
    client = request.client.host if request.client else ""
    return {"client": client, "request_id": str(request.scope.get("state", {}).get("request_id", ""))}
