"""`AccessSettings` says where the service listens, and who may use which of its routes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from app.setting_types import HeaderKey, HeaderKeys, Host, Origins, RootPath


class AccessSettings(BaseModel):
    """Says where the service listens, and who may use which of its routes."""

    host: Host = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 opens it to the network.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on.")
    root_path: RootPath = Field(
        "",
        description="Sub-path below which a proxy shows the service, say /ctr; the proxy may pass it on or cut it off.",
    )
    cors_origins: Origins = Field(
        (),
        description="Comma-separated origins whose pages may call the service, say https://shop.example; * for all.",
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
        None, ge=1, le=65_535, description="Port for the admin routes alone; CTR_PORT then has none of them."
    )
    admin_host: Host = Field("127.0.0.1", description="Address to listen on for CTR_ADMIN_PORT.")
    docs: bool = Field(True, description="Serve /docs and /openapi.json; false leaves them out.")
    catalogue: str = Field(
        "",
        description="File of items, or folder of items.csv and users.csv (or .jsonl, .parquet), with columns id and "
        "title, for the page to search and show.",
    )
    metrics: Literal["open", "key", "off"] = Field(
        "open", description="Who may read /metrics: everybody (open), holders of an API key (key), nobody (off)."
    )

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
