"""`ServiceState`: the part of the running service that the routes other than /rank read, at `app.state.service`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from app.observability.metrics import Metrics
from app.ranking.monitor import ModelMonitor
from app.ranking.shadow import Shadow
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LifecycleStatus
from app.registry.store.model_store import ModelStore


@dataclass(frozen=True)
class FeatureStatus:
    """The state of the feature store and of this process's item cache."""

    connected: bool
    detail: str
    """Shown to everybody who asks /health, so it holds no passwords."""
    cached_items: int
    readable: bool = True
    """Whether the store, connected, gives what it is asked for."""


class LiveModels(Protocol):
    """The part of `LiveSnapshot` that routes read."""

    def labels(self) -> dict[str, Artifact]: ...


class ModelLifecycle(Protocol):
    """The part of `Lifecycle` that routes read."""

    @property
    def live(self) -> LiveModels: ...

    def status(self) -> LifecycleStatus: ...


class ServiceState(Protocol):
    """The part of `app.service.Service` that routes read."""

    @property
    def lifecycle(self) -> ModelLifecycle: ...

    @property
    def model_store(self) -> ModelStore: ...

    @property
    def metrics(self) -> Metrics: ...

    @property
    def monitor(self) -> ModelMonitor: ...

    @property
    def shadow(self) -> Shadow: ...

    @property
    def draining(self) -> bool: ...

    def feature_status(self) -> FeatureStatus: ...

    def event_problems(self) -> list[str]: ...


async def service_of(request: Request) -> ServiceState:
    """Return the service of the application that handles this request; for FastAPI's `Depends`.

    It is `async` because FastAPI runs other dependencies on a thread, which contends with usual requests.
    """
    service: ServiceState = request.app.state.service
    return service
