"""`RequestSettings` says what a request may ask for, and when it is refused."""

from __future__ import annotations

from pydantic import BaseModel, Field


class RequestSettings(BaseModel):
    """Says what a request may ask for, and when it is refused."""

    deadline_ms: float = Field(
        1000.0, gt=0, le=60_000, description="A request that takes longer is answered 504; clients may ask for less."
    )
    max_candidates: int = Field(2000, ge=1, le=100_000, description="More item ids in one request are refused.")
    max_body_bytes: int = Field(
        600_000,
        ge=1_000,
        le=1_000_000_000,
        description="Larger bodies are refused; parsing 1 MB of bad ones can take 0.1 s.",
    )
    body_timeout_s: float = Field(5.0, gt=0, le=600, description="A body that arrives slower is refused.")
    key_rate: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Requests a second that each API key may send to a process, in bursts of a second's; a body over "
        "8 KB counts as several. Unset, and without CTR_API_KEYS, there is no limit.",
    )
    max_wait_ms: float = Field(
        5.0,
        gt=0,
        le=60_000,
        description="Longest wait for the work before a request in an overloaded process, one in which most requests "
        "would wait longer; what would wait longer is refused at once, while 8 or more are at work, and for up to "
        "three seconds after a refusal while as many are as keep the process busy.",
    )
    max_inflight: int = Field(
        256, ge=1, le=100_000, description="Requests at work at once; more are refused at once instead of waiting."
    )
