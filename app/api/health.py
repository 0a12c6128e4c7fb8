"""GET /health for operators, /health/live for supervisors and /health/ready for load balancers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from app.api.response_model import ResponseModel
from app.api.service_state import ServiceState, service_of
from app.registry.lifecycle.snapshot import LifecycleStatus

router = APIRouter(prefix="/health", tags=["health"])
State = Annotated[ServiceState, Depends(service_of)]

NO_MODEL, FALLBACK, FEATURES, DRAINING = "no_model_live", "model_fallback", "features_unavailable", "draining"


class ModelProblem(ResponseModel):
    """One reason why a label is not served as `serving.json` asks."""

    label: str
    version: int | None
    reason: str = Field(description="One word, as in the log and in ctr_model_swaps_total")
    message: str


class ModelHealth(ResponseModel):
    """The versions that this process serves, and why they differ from those that the model store asks for."""

    name: str
    version: int | None = Field(description="The stable version, if one is live")
    sha256: str | None = Field(description="Of the stable version's program")
    labels: dict[str, int] = Field(description="Label to version live in this process")
    canary_share: float
    fallback: bool = Field(description="The stable version is not the one asked for, which was refused")
    last_swap_at: datetime | None
    problems: list[ModelProblem] = Field(description="What stands between the model store and what is live")
    damages: dict[int, str] = Field(
        description="Live versions whose files are damaged or gone: served from memory, lost with the next restart"
    )


class FeatureHealth(ResponseModel):
    """The connection to the feature store, and how many items are cached."""

    connected: bool
    detail: str
    cached_items: int


class Health(ResponseModel):
    """The answer of `GET /health`."""

    status: Literal["ok", "degraded", "unavailable"]
    model: ModelHealth
    features: FeatureHealth
    reasons: list[str] = Field(description="Why the status is not ok")


class Readiness(ResponseModel):
    """The answer of `GET /health/ready`."""

    ready: bool
    reasons: list[str] = Field([], description="Why it is not ready")


class Liveness(ResponseModel):
    """The answer of `GET /health/live`."""

    alive: Literal[True] = True


@router.get("", responses={503: {"model": Health, "description": "It cannot rank"}})
async def health(service: State, response: Response) -> Health:
    """Answer 200 while this process can rank, from defaults if need be; `reasons` says what is not as it should be."""
    lifecycle, features = service.lifecycle.status(), service.feature_status()
    stable = service.lifecycle.live.labels().get("stable")
    problems = problems_of(lifecycle)
    conditions = {
        NO_MODEL: stable is None,
        FALLBACK: lifecycle.fallback,
        FEATURES: not (features.connected and features.readable),
        DRAINING: service.draining,
    }
    reasons = [reason for reason, holds in conditions.items() if holds]
    reasons += [f"{problem.label}_refused: {problem.reason}" for problem in problems]
    reasons += [f"version_{version}_files_damaged" for version in lifecycle.damages]
    reasons += service.event_problems()
    status: Literal["ok", "degraded", "unavailable"] = (
        "unavailable" if stable is None else "degraded" if reasons else "ok"
    )
    _set_status(response, ok=stable is not None)
    return Health(
        status=status,
        model=ModelHealth(
            name=lifecycle.model,
            version=stable.version if stable else None,
            sha256=stable.program_sha256 if stable else None,
            labels=lifecycle.versions,
            canary_share=lifecycle.canary_share,
            fallback=lifecycle.fallback,
            last_swap_at=datetime.fromtimestamp(lifecycle.last_swap_at, UTC) if lifecycle.last_swap_at else None,
            problems=problems,
            damages=lifecycle.damages,
        ),
        features=FeatureHealth(
            connected=features.connected, detail=features.detail, cached_items=features.cached_items
        ),
        reasons=reasons,
    )


@router.get("/live")
async def live(response: Response) -> Liveness:
    """Answer 200 while the event loop turns, whatever the store and the model do: a restart would cure neither."""
    _set_status(response, ok=True)
    return Liveness()


@router.get("/ready", responses={503: {"model": Readiness, "description": "Send no traffic here"}})
async def ready(service: State, response: Response) -> Readiness:
    """Answer 200 when a model is live, which it is only once warm, and the process is not about to stop."""
    reasons = not_ready_reasons(service)
    _set_status(response, ok=not reasons)
    return Readiness(ready=not reasons, reasons=reasons)


def not_ready_reasons(service: ServiceState) -> list[str]:
    """Return why this process wants no traffic; it does where there is no reason."""
    conditions = {NO_MODEL: "stable" not in service.lifecycle.live.labels(), DRAINING: service.draining}
    return [reason for reason, holds in conditions.items() if holds]


def problems_of(status: LifecycleStatus) -> list[ModelProblem]:
    """Return the lifecycle's problems as /health and /models show them."""
    return [ModelProblem(label=p.label, version=p.version, reason=p.reason, message=p.message) for p in status.problems]


def _set_status(response: Response, *, ok: bool) -> None:
    response.status_code = 200 if ok else 503
    response.headers["Cache-Control"] = "no-store"
