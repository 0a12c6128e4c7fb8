"""Every setting, in one frozen table.

The command line comes first, then the environment (`CTR_*`), then `.env`, then the default given here. Blanks and line
ends around a value do not belong to it, and an empty value stands for the default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import ConfigError
from app.setting_types import Files, HeaderKey, HeaderKeys, Host, KeyPattern, Networks, Origins, RedisAddress, RootPath

FOR_PUBLISHING: dict[str, JsonValue] = {"for_publishing": True}
"""Marks a setting that `app.publishing` reads: it is passed on to the processes in which a service has it run."""


class Settings(BaseSettings):
    """The settings of a process, read once at its start. `load_settings` builds it and explains what is wrong."""

    model_config = SettingsConfigDict(env_prefix="CTR_", env_file=".env", frozen=True, extra="ignore")

    redis_url: RedisAddress = Field(
        "",
        description="Where the features are: redis://, rediss:// (TLS), redis+sentinel:// or unix://; all forms are in "
        "docs/redis.md. Empty starts the embedded Valkey.",
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

    model_store: Path = Field(
        Path("model_store"), description="Folder of published versions.", json_schema_extra=FOR_PUBLISHING
    )
    model: str = Field("deepfm", description="Which model under it is served.", json_schema_extra=FOR_PUBLISHING)
    poll_s: float = Field(
        1.0, gt=0, le=3600, description="How often serving.json is looked at; a swap starts at most this much later."
    )
    mlflow_uri: str = Field(
        "", description="MLflow server or store that `ctr train` also writes its runs to, say sqlite:///runs/mlflow.db."
    )
    keep_versions: int = Field(
        20,
        ge=2,
        le=1_000_000,
        description="Versions kept when a new one is published; those with a label, lately stable or loaded stay too.",
        json_schema_extra=FOR_PUBLISHING,
    )

    signing_key: Path | None = Field(
        None,
        description="PEM file of the Ed25519 private key that signs what is published; publishers only have it.",
        json_schema_extra=FOR_PUBLISHING,
    )
    trusted_keys: Files = Field(
        (),
        description="Comma-separated PEM files of public keys; set, versions that none of them signed are refused.",
        json_schema_extra=FOR_PUBLISHING,
    )

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

    canary_guard: bool = Field(True, description="Take a canary out by itself when it crosses one of the limits below.")
    canary_min_requests: int = Field(
        1000,
        ge=10,
        le=10_000_000,
        description="Scores of a canary are compared over the last so many of its requests in a process, to twice as "
        "many; fewer judge sooner, and by less.",
    )
    canary_error_rate: float = Field(
        0.01, ge=0.0, le=1.0, description="Share of requests that a canary may fail to score; stable answers those."
    )
    canary_non_finite_rate: float = Field(
        0.01, ge=0.0, le=1.0, description="Share of a canary's answers that may hold a score which is not a number."
    )
    canary_ctr_ratio: float = Field(
        1.5,
        ge=1.0,
        description="A canary's mean score may be this many times stable's, or stable's its; users differ more than "
        "candidates of one request, so leave more room than the gate does.",
    )
    canary_drift: float = Field(
        0.3,
        ge=0.0,
        le=1.0,
        description="How far the distributions of a canary's and of stable's scores may lie apart "
        "(Kolmogorov-Smirnov); 1 allows everything.",
    )
    shadow_share: float = Field(
        0.1,
        ge=0.0,
        le=1.0,
        description="Share of requests of which the shadow scores up to 100 items too, once they are answered; fewer "
        "when the process is busy, and for 5 % at most of the time that requests leave.",
    )

    host: Host = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 opens it to the network.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on.")
    workers: int = Field(1, ge=1, le=256, description="Processes. One per core that is not busy with the store.")
    worker_timeout_s: float = Field(
        3.0,
        ge=1,
        le=3600,
        description="A worker whose event loop has not turned for so long is killed and replaced. Loading a version "
        "holds it up by about 2 ms a megabyte of its program.",
    )

    root_path: RootPath = Field(
        "",
        description="Sub-path below which a proxy shows the service, say /ctr; the proxy may pass it on or cut it off.",
    )
    cors_origins: Origins = Field(
        (),
        description="Comma-separated origins whose pages may call the service, say https://shop.example; * for all.",
    )

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
    busy_poll_us: float = Field(
        0.0,
        ge=0,
        le=1_000_000,
        description="A worker looks for the next request for so long after an answer before it sleeps; 1000 where it "
        "has a core to itself: slow answers get rarer, and the core looks busy.",
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
        description="In a process that is overloaded, which is one where most requests would wait longer for the work "
        "before them, those that would are refused at once, unless fewer than 8 are at work.",
    )
    max_inflight: int = Field(
        256, ge=1, le=100_000, description="Requests at work at once; more are refused at once instead of waiting."
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

    api_keys: HeaderKeys = Field(
        (), description="Comma-separated keys for X-API-Key, or hashes of `ctr key`; empty leaves /rank open."
    )
    admin_key: HeaderKey | None = Field(
        None,
        description="Key for X-Admin-Key, or its hash, on POST /admin/promote, /rollback and /refuse; unset, there "
        "are none.",
    )
    admin_port: int | None = Field(
        None, ge=1, le=65_535, description="Port of its own for the admin routes, which CTR_PORT then has none of."
    )
    admin_host: Host = Field("127.0.0.1", description="Address to listen on for CTR_ADMIN_PORT.")
    docs: bool = Field(True, description="Serve /docs and /openapi.json; false leaves them out.")
    metrics: Literal["open", "key", "off"] = Field(
        "open", description="Who may read /metrics: all, who has one of the API keys, or nobody."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line to log.")
    log_requests: bool = Field(False, description="Log a line a request, of the level info; off it costs nothing.")

    @field_validator("admin_port")
    @classmethod
    def _check_admin_port(cls, port: int | None, values: ValidationInfo) -> int | None:
        if port is not None and not values.data.get("admin_key"):
            raise ValueError("there is no CTR_ADMIN_KEY; set one, or leave the port out")
        if port is not None and port == values.data.get("port"):
            raise ValueError("it is CTR_PORT; choose another")
        return port

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: str, values: ValidationInfo) -> str:
        if metrics == "key" and not values.data.get("api_keys"):
            raise ValueError("there are no CTR_API_KEYS; set some, or choose open or off")
        return metrics

    @model_validator(mode="before")
    @classmethod
    def _trim(cls, raw: dict[str, Any]) -> dict[str, Any]:
        trimmed = {name: value.strip() if isinstance(value, str) else value for name, value in raw.items()}
        return {name: value for name, value in trimmed.items() if value != ""}


def publishing_settings() -> list[str]:
    """Return the names of the settings that are marked FOR_PUBLISHING, in the order of the table."""
    return [name for name, field in Settings.model_fields.items() if field.json_schema_extra == FOR_PUBLISHING]


def load_settings(**overrides: Any) -> Settings:
    """Read the settings, with the command line's values on top; None and "" stand for a value that was not given.

    Raises ConfigError with one line per bad setting, which names the environment variable to change.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None and value != ""})
    except ValidationError as error:
        lines = [
            f"CTR_{'_'.join(str(part) for part in problem['loc'][:1]).upper()}: "
            + problem["msg"].removeprefix("Value error, ")
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigError("\n".join(lines)) from error
