"""`ScoringSettings` says where and how models compute."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ScoringSettings(BaseModel):
    """Says where and how models compute."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where models run; auto takes CUDA if it is there."
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="Precision of item states and the deep part; bf16 halves their memory."
    )
    batch_max_rows: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Candidates of several requests scored in one call, for a GPU under load; 0 scores each alone.",
    )
    batch_max_wait_us: float = Field(
        200.0, ge=0, le=100_000, description="Longest wait for others; 0 batches what arrived together."
    )
