"""GET /models: the versions in the model store, and which of them this process serves."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from app.api.state import ServiceState, service_of
from app.errors import ArtifactError
from app.registry.model_store import ModelStore, Pointer, labels_of
from app.registry.report import read_report

router = APIRouter(tags=["models"])


class Version(BaseModel):
    version: int
    architecture: str | None = None
    created_at: str | None = None
    metrics: dict[str, Any] = {}
    labels: list[str] = Field([], description="What serving.json calls it")
    live: list[str] = Field([], description="Labels under which it is live in this process")
    error: str | None = Field(None, description="Why its manifest cannot be read")
    gate: dict[str, Any] | None = Field(None, description="What the checks before it went live found; null: not made")


class Models(BaseModel):
    model: str
    live: dict[str, int] = Field(description="Label to version live in this process")
    canary_share: float
    fallback: bool
    serving: dict[str, Any] = Field(description="serving.json: what should be live")
    error: str | None = Field(None, description="Why serving.json cannot be read")
    versions: list[Version] = Field(description="Newest first")


@router.get("/models")
def models(
    service: Annotated[ServiceState, Depends(service_of)],
    limit: Annotated[int, Query(ge=1, le=1000, description="How many of the newest versions to list")] = 50,
) -> Models:
    # Not `async`: it reads a manifest per version, so it runs on a thread.
    status, store = service.lifecycle.status(), service.model_store
    pointer, error = Pointer(), None
    try:
        pointer = store.pointer()
    except ArtifactError as damaged:
        error = str(damaged)
    wanted = labels_of(pointer)
    # A version that is live is listed however old, and though its folder be gone.
    newest = set(store.versions()[-limit:]) | set(status.versions.values()) | set(wanted.values())
    serving: dict[str, Any] = dict(wanted)
    if pointer.canary is not None:
        serving["canary"] = {"version": pointer.canary.version, "share": pointer.canary.share}
    return Models(
        model=status.model,
        live=status.versions,
        canary_share=status.canary_share,
        fallback=status.fallback,
        serving=serving,
        error=error,
        versions=[_version(store, number, wanted, status.versions) for number in sorted(newest, reverse=True)],
    )


def _version(store: ModelStore, number: int, wanted: dict[str, int], live: dict[str, int]) -> Version:
    version = Version(
        version=number,
        labels=[label for label, named in wanted.items() if named == number],
        live=[label for label, serving in live.items() if serving == number],
    )
    report = read_report(store.path(number))
    version.gate = None if report is None else msgspec.to_builtins(report)
    try:
        manifest = store.manifest(number)
    except ArtifactError as error:
        version.error = str(error)
    else:
        version.architecture, version.created_at = manifest.architecture, manifest.created_at
        version.metrics = manifest.metrics
    return version
