"""GET /metrics: the metrics of all processes as Prometheus text."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.api.service_state import ServiceState, service_of

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text"}},
)
def metrics(service: Annotated[ServiceState, Depends(service_of)]) -> Response:
    """Answer with the metrics of all processes of the service."""
    # Not `async`: with several processes it reads files for a millisecond and more, so it runs on a thread.
    body, content_type = service.metrics.render()
    return Response(body, headers={"Content-Type": content_type})
