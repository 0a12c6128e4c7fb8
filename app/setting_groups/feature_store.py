"""`FeatureStoreSettings` says where features are read, and which items are kept in memory."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from app.setting_types import FOR_PUBLISHING, KeyPattern, RedisAddress


class FeatureStoreSettings(BaseModel):
    """Says where features are read, and which items are kept in memory."""

    redis_url: RedisAddress = Field(
        "",
        description="Where the features are: redis://, rediss:// (TLS), redis+sentinel://, redis+cluster:// or unix://"
        "; all forms are in docs/redis.md. Empty starts the embedded Valkey.",
        json_schema_extra=FOR_PUBLISHING,
    )
    redis_timeout_ms: float = Field(
        30.0, gt=0, le=10_000, description="Longest wait for the store; past it the answer is made from defaults."
    )
    user_key: KeyPattern = Field(
        "ctr:v1:user:{id}",
        description="Redis key of a user's hash; set it to read your own layout.",
        json_schema_extra=FOR_PUBLISHING,
    )
    item_key: KeyPattern = Field(
        "ctr:v1:item:{id}", description="Redis key of an item's hash.", json_schema_extra=FOR_PUBLISHING
    )
    data_dir: Path = Field(
        Path(".ctr"), description="Where the embedded Valkey keeps its data.", json_schema_extra=FOR_PUBLISHING
    )
    item_cache_size: int = Field(
        1_000_000,
        ge=1,
        le=100_000_000,
        description="Items kept encoded in each process; the least recently used go first. A 64th as many that the "
        "store does not know are kept beside them.",
    )
    item_max_age_s: float | None = Field(
        None,
        gt=0,
        le=86_400,
        description="Seconds after which a cached item is read again, because stores do not report every change "
        "(SWAPDB). Unset: 600 where the store reports changes; where it reports none, each request reads its items.",
    )
    item_cache_warm: bool = Field(True, description="Read the items in the store at start, up to the cache's size.")
