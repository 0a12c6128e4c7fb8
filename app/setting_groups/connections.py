"""`ConnectionSettings` says how many connections may be open, and how long they may wait for their clients."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.setting_types import Networks


class ConnectionSettings(BaseModel):
    """Says how many connections may be open, and how long they may wait for their clients."""

    keep_alive_s: int = Field(
        75,
        ge=1,
        le=86_400,
        description="How long an idle connection stays open; longer than the proxy in front keeps it (nginx and most "
        "clouds 60 s, some 600), or the proxy meets a closed one and answers 502.",
    )
    max_header_bytes: int = Field(
        32_768, ge=1_000, le=10_000_000, description="Requests whose headers are larger are refused."
    )
    header_timeout_s: float = Field(
        5.0,
        gt=0,
        le=600,
        description="Headers that arrive slower are refused; of a new connection from when it was accepted, so that "
        "one that says nothing is closed after as long.",
    )
    max_connections: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Open connections of a worker, or as many as its descriptors allow; past it, the one that waits "
        "longest for its client makes room.",
    )
    max_connections_per_address: int = Field(
        4_000,
        ge=1,
        le=1_000_000,
        description="Open connections of one client address in a worker; past it, new ones are answered 503.",
    )
    trusted_proxies: Networks = Field(
        (),
        description="Comma-separated addresses or networks of proxies, say 10.0.0.0/8: not bounded as one address, "
        "and free to open connections ahead of requests.",
    )
