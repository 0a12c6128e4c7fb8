"""`GateSettings` says what a version must pass before it gets a label."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.setting_types import FOR_PUBLISHING


class GateSettings(BaseModel):
    """Says what a version must pass before it gets a label."""

    gate_timeout_s: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="A version whose checks take longer is refused; large tables need more.",
        json_schema_extra=FOR_PUBLISHING,
    )
    gate_memory_mb: int = Field(
        4096,
        ge=64,
        le=1_000_000,
        description="Memory for the checks; the tables of two versions must fit in it.",
        json_schema_extra=FOR_PUBLISHING,
    )
    gate_ctr_ratio: float = Field(
        1.3,
        ge=1.0,
        description="A version whose mean score is further from the live one's, up or down, is refused; two seeds "
        "differ by 1.01. Raise it where click rates swing from day to day.",
        json_schema_extra=FOR_PUBLISHING,
    )
    gate_rank_correlation: float = Field(
        0.5,
        ge=-1.0,
        le=1.0,
        description="Least agreement (Spearman) with the live version's order; two seeds agree by 0.99, two "
        "architectures by 0.9. -1 asks for none.",
        json_schema_extra=FOR_PUBLISHING,
    )
    gate_latency_ratio: float = Field(
        5.0,
        ge=1.0,
        description="A version that takes longer than the live one, by this factor, is refused; raise it to go from a "
        "small model to a large one.",
        json_schema_extra=FOR_PUBLISHING,
    )
    gate_known_keys: float = Field(
        0.3,
        ge=0.0,
        le=1.0,
        description="Least share of what the feature store holds that the version knows; 0 asks for nothing. A low "
        "share means that it was trained on other features.",
        json_schema_extra=FOR_PUBLISHING,
    )
