"""What the routes beside /rank need of the running service; `app.main` puts it at `app.state.service`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from app.observability.metrics import Metrics
from app.ranking.monitor import Watch
from app.ranking.shadow import Shadow
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.lifecycle import LifecycleStatus
from app.registry.store.model_store import ModelStore


@dataclass(frozen=True)
class FeatureStatus:
    """Of the feature store and the item cache of this process."""

    connected: bool
    detail: str
    """Shown to anybody who asks /health: no passwords."""
    cached_items: int


class LiveModels(Protocol):
    def labels(self) -> dict[str, Artifact]: ...


class ModelLifecycle(Protocol):
    """The part of `Lifecycle` that is looked at."""

    @property
    def live(self) -> LiveModels: ...

    def status(self) -> LifecycleStatus: ...


class Features(Protocol):
    def status(self) -> FeatureStatus: ...


class ServiceState(Protocol):
    @property
    def lifecycle(self) -> ModelLifecycle: ...

    @property
    def features(self) -> Features: ...

    @property
    def model_store(self) -> ModelStore: ...

    @property
    def metrics(self) -> Metrics: ...

    @property
    def watch(self) -> Watch: ...

    @property
    def shadow(self) -> Shadow: ...

    @property
    def draining(self) -> bool: ...


def service_of(request: Request) -> ServiceState:
    service: ServiceState = request.app.state.service
    return service
