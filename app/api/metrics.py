"""GET /metrics: the metrics of all processes as Prometheus text."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.api.kept_answers import TOO_OFTEN, KeptAnswers
from app.api.service_state import ServiceState, service_of


def router() -> APIRouter:
    """Return the route of the metrics."""
    routes = APIRouter(tags=["metrics"])
    answers: KeptAnswers[tuple[bytes, str]] = KeptAnswers()

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text"}, **TOO_OFTEN},
    )
    async def metrics(service: Annotated[ServiceState, Depends(service_of)]) -> Response:
        """Answer with the metrics of all processes of the service."""
        body, content_type = await answers.get("", service.metrics.render)
        return Response(body, headers={"Content-Type": content_type})

    return routes
