"""`ProcessSettings` says how many processes serve, how they wait, are watched and end, and what they log."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ProcessSettings(BaseModel):
    """Says how many processes serve, how they wait, are watched and end, and what they log."""

    workers: int = Field(1, ge=1, le=256, description="Processes. One per core that is not busy with the store.")
    worker_timeout_s: float = Field(
        3.0,
        ge=1,
        le=3600,
        description="A worker whose event loop has not turned for so long is killed and replaced. Loading a version "
        "holds it up by about 2 ms a megabyte of its program.",
    )
    drain_s: float = Field(
        3.0,
        ge=0,
        le=3600,
        description="How long /health/ready says 503 after SIGTERM while requests are still accepted, so that whoever "
        "sends traffic notices. Ctrl-C does not wait.",
    )
    shutdown_grace_s: float = Field(
        10.0, ge=0, le=3600, description="How long requests may finish after that; what is left is cut off."
    )
    busy_poll_us: float = Field(
        0.0,
        ge=0,
        le=1_000_000,
        description="A worker looks for the next request for so long after an answer before it sleeps; 1000 where it "
        "has a core to itself: slow answers get rarer, and the core looks busy.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line to log.")
    log_requests: bool = Field(False, description="Log a line a request, of the level info; off it costs nothing.")
