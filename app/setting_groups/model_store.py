"""`ModelStoreSettings` says where versions are published and followed, and who signs them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from app.setting_types import FOR_PUBLISHING, Files


class ModelStoreSettings(BaseModel):
    """Says where versions are published and followed, and who signs them."""

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
