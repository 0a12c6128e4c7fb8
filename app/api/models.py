"""GET /models: the versions in the model store, and which of them this process serves."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from app.api.health import ModelProblem, problems_of
from app.api.kept_answers import TOO_OFTEN, KeptAnswers
from app.api.response_model import ResponseModel
from app.api.service_state import ServiceState, service_of
from app.ranking.routing import STABLE
from app.ranking.score_histogram import ScoreStats
from app.ranking.shadow_stats import ShadowStats
from app.registry.artifact.artifact import Artifact
from app.registry.store.version_table import VersionRow, read_row, read_serving

EXAMPLES = 20
QUANTILES = (0.1, 0.5, 0.9, 0.99)


class Version(ResponseModel):
    """A version in the model store."""

    version: int
    architecture: str | None = None
    created_at: str | None = None
    metrics: dict[str, Any] = Field({})
    dataset: str | None = Field(None, description="Which kind of data it was trained on")
    example_items: list[str] = Field([], description="Item ids that it was tried with when it was written")
    labels: list[str] = Field([], description="What serving.json calls it")
    live: list[str] = Field([], description="Labels under which it is live in this process")
    error: str | None = Field(None, description="Why its manifest cannot be read")
    gate: dict[str, Any] | None = Field(None, description="What the checks before it went live found; null: not made")


class Scores(ResponseModel):
    """Mean and quantiles of a sample of the answers' scores."""

    mean: float
    quantiles: dict[str, float] = Field(description="Share to the score that so many are below")


class LiveVersion(ResponseModel):
    """The counts and scores of a live version in this process under one label."""

    label: str = Field(description="stable, canary, shadow; pinned: the caller chose the version")
    version: int
    requests: int = Field(description="Answers")
    errors: int = Field(description="Requests it failed to score; stable answered them")
    non_finite: int = Field(description="Answers in which a score was not a number")
    scores: Scores | None


class ShadowSummary(ResponseModel):
    """How the shadow's scores compare with the answers', over a sample of the requests."""

    version: int
    compared: int
    skipped: int = Field(description="Drawn, but the process was busy")
    failed: int
    score_shift: float | None = Field(description="Mean score of the shadow less that of the answers")
    score_ratio: float | None = Field(description="Mean score of the shadow over that of the answers")
    rank_correlation: float | None = Field(description="Mean agreement of the orders (Spearman)")


class InputField(ResponseModel):
    """A raw field that the stable version reads."""

    name: str = Field(description="As requests and the feature store call it")
    entity: str = Field(description="user, context or item")
    type: str = Field(description="categorical, multi_categorical or numeric")


class Models(ResponseModel):
    """The answer of `GET /models`."""

    model: str
    live: dict[str, int] = Field(description="Label to version live in this process")
    canary_share: float
    fallback: bool
    serving: dict[str, Any] = Field(description="serving.json: what should be live")
    error: str | None = Field(None, description="Why serving.json cannot be read")
    problems: list[ModelProblem] = Field(description="Why a label is not what it should be, or was taken away")
    watched: list[LiveVersion] = Field(description="What live versions did in this process")
    shadow: ShadowSummary | None = Field(description="The shadow in this process, where it has seen requests")
    fields: list[InputField] = Field(description="What the stable version reads, ids apart; empty if none is live")
    versions: list[Version] = Field(description="Newest first")


def router() -> APIRouter:
    """Return the route of the versions."""
    routes = APIRouter(tags=["models"])
    answers: KeptAnswers[bytes] = KeptAnswers()

    @routes.get("/models", response_model=Models, responses=TOO_OFTEN)
    async def models(
        service: Annotated[ServiceState, Depends(service_of)],
        limit: Annotated[int, Query(ge=1, le=1000, description="How many of the newest versions to list")] = 50,
    ) -> Response:
        """List the newest versions, and what this process makes of them."""
        body = await answers.get(limit, lambda: _models(service, limit).model_dump_json().encode())
        return Response(body, media_type="application/json")

    return routes


def _models(service: ServiceState, limit: int) -> Models:
    """Describe the newest versions; it reads a manifest for each."""
    status, store = service.lifecycle.status(), service.model_store
    pointer, error = read_serving(store)
    versions_by_label = pointer.versions_by_label()
    # A version that is live is listed however old, and though its folder be gone.
    newest = set(store.versions()[-limit:]) | set(status.versions.values()) | set(versions_by_label.values())
    return Models(
        model=status.model,
        live=status.versions,
        canary_share=status.canary_share,
        fallback=status.fallback,
        serving=msgspec.to_builtins(pointer),
        error=error,
        problems=problems_of(status),
        watched=[
            _live_version(label, number, stats)
            for (label, number), stats in service.monitor.stats().items()
            if number in status.versions.values()
        ],
        shadow=_shadow(service.shadow.stats()),
        fields=_fields(service.lifecycle.live.labels().get(STABLE)),
        versions=[
            _version(read_row(store, version, versions_by_label), status.versions)
            for version in sorted(newest, reverse=True)
        ],
    )


def _fields(artifact: Artifact | None) -> list[InputField]:
    """Return the raw fields that a version reads, each once for the entity that has it."""
    if artifact is None:
        return []
    fields = {
        (field.entity, field.raw_name): InputField(name=field.raw_name, entity=field.entity, type=field.type)
        for field in reversed(artifact.schema.fields)  # of two that read one raw field the first says what it is
        if not field.is_id and not field.is_position
    }
    return list(reversed(fields.values()))


def _live_version(label: str, version: int, stats: ScoreStats) -> LiveVersion:
    stats = stats.copy()  # they grow while they are read
    scores = None
    if stats.mean is not None:
        quantiles = {f"{share:g}": round(stats.quantile(share) or 0.0, 5) for share in QUANTILES}
        scores = Scores(mean=round(stats.mean, 5), quantiles=quantiles)
    return LiveVersion(
        label=label,
        version=version,
        requests=stats.requests,
        errors=stats.errors,
        non_finite=stats.non_finite,
        scores=scores,
    )


def _shadow(stats: ShadowStats | None) -> ShadowSummary | None:
    if stats is None:
        return None
    return ShadowSummary(
        version=stats.version,
        compared=stats.compared,
        skipped=stats.skipped,
        failed=stats.failed,
        score_shift=stats.shift,
        score_ratio=stats.ratio,
        rank_correlation=stats.correlation,
    )


def _version(row: VersionRow, live: dict[str, int]) -> Version:
    version = Version(
        version=row.version,
        labels=row.labels,
        live=[label for label, serving in live.items() if serving == row.version],
        error=row.problem,
        gate=None if row.gate is None else msgspec.to_builtins(row.gate),
    )
    if row.manifest is not None:
        version.architecture, version.created_at = row.manifest.architecture, row.manifest.created_at
        version.metrics = row.manifest.metrics
        version.dataset = row.manifest.data.get("dataset")
        tried = dict.fromkeys(item_id for golden in row.manifest.golden for item_id in golden.item_ids)
        version.example_items = list(tried)[:EXAMPLES]
    return version
