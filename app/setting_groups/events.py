"""`EventSettings` says which answers and clicks are recorded, and where to."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from app.setting_types import HeaderKey, Words


class EventSettings(BaseModel):
    """Says which answers and clicks are recorded, and where to."""

    events: str = Field(
        "",
        description="Where answers and feedback are recorded: a folder, `s3://BUCKET/PREFIX` or "
        "`redis://HOST:PORT/STREAM`; empty records nothing.",
    )
    events_top: int = Field(50, ge=1, le=10_000, description="How many items of an answer are recorded.")
    events_buffer: int = Field(
        20_000,
        ge=100,
        le=10_000_000,
        description="Records a process holds that are not written yet, 2 KB each; more are dropped and counted.",
    )
    events_segment_s: float = Field(
        60.0, ge=1, le=86_400, description="Age at which what was recorded becomes a finished Parquet file."
    )
    events_segment_mb: float = Field(64.0, ge=1, le=10_000, description="Size at which it does so sooner.")
    events_keep_days: float = Field(
        0.0, ge=0, le=36_500, description="Days after which recorded answers and feedback are deleted; 0 keeps them."
    )
    events_keep_mb: float = Field(
        0.0, ge=0, description="Megabytes of finished files beyond which the oldest are deleted; 0 keeps them."
    )
    events_spool: Path = Field(
        Path(".ctr/events-spool"),
        description="Folder in which files wait for a bucket or stream; best one that outlives processes.",
    )
    events_spool_mb: float = Field(
        1024.0, ge=1, description="Megabytes that may wait there; beyond them records are dropped and counted."
    )
    events_stream_length: int = Field(
        10_000, ge=100, le=100_000_000, description="About how many files a stream keeps, read or not."
    )
    events_id_key: HeaderKey | None = Field(
        None, description="Key of a hash that is recorded in place of each user's id; unset, the ids are."
    )
    feedback_types: Words = Field(
        ("click", "conversion", "shown"), description="Comma-separated types of feedback that POST /feedback takes."
    )
