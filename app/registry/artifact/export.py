"""Write a trained model as the three files of a version; its golden scores are computed by the program as written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from app.errors import ArtifactError
from app.features.field_histogram import FieldHistogram
from app.features.schema import FeatureSchema
from app.models.base import CtrModel
from app.models.serving_form import serving_form
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import ArtifactLoader
from app.registry.artifact.manifest import (
    FORMAT,
    PROGRAM,
    TABLES,
    FileProof,
    GoldenRequest,
    Manifest,
    now,
)
from app.registry.artifact.manifest_file import write_manifest
from app.registry.torchscript.scripting import script
from app.runtime.durable_file import fsync_path


def write(
    folder: Path,
    model: CtrModel,
    schema: FeatureSchema,
    *,
    name: str,
    golden: Sequence[GoldenRequest],
    metrics: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    histograms: dict[str, FieldHistogram] | None = None,
    extra_files: Sequence[str] = (),
) -> Manifest:
    """Write a version (numbered 0) into an existing folder and fsync its files.

    Args:
        golden: requests; their scores are computed here, by the program as it will be loaded.
        histograms: of the fields in the training rows, by name.
        extra_files: files in the folder that are not served, such as a report; the manifest proves them, but a version
            that has lost them is still whole.

    Raises:
        ArtifactError: a file cannot be written, or the version would not load.
    """
    served = serving_form(model)
    tables = {table: getattr(served, table).detach().contiguous() for table in served.tables}
    try:
        save_file(tables, folder / TABLES)
        os.chmod(folder / TABLES, 0o644)  # safetensors makes it private; the service may run as another user
        (folder / PROGRAM).write_bytes(script(served))
        for file in (PROGRAM, TABLES, *extra_files):
            fsync_path(folder / file)
    except (OSError, SafetensorError) as error:
        raise ArtifactError("file", f"the version cannot be written to {folder}: {error}") from error
    manifest = Manifest(
        name=name,
        version=0,
        format=FORMAT,
        created_at=now(),
        architecture=model.name,
        files={file: _proof(folder / file) for file in (PROGRAM, TABLES, *extra_files)},
        tables={name: list(table.shape) for name, table in tables.items()},
        feature_schema=schema.model_dump(mode="json"),
        schema_hash=schema.hash,
        golden=[],
        metrics=metrics or {},
        data=data or {},
        config=config or {},
        histograms=histograms or {},
    )
    loaded = ArtifactLoader().assemble(folder, manifest, torch.device("cpu"))
    manifest = msgspec.structs.replace(manifest, golden=[_with_scores(loaded, request) for request in golden])
    write_manifest(folder, manifest)
    return manifest


def _with_scores(artifact: Artifact, request: GoldenRequest) -> GoldenRequest:
    user = artifact.user_encoder.encode(request.user, request.user_id)
    items = artifact.item_encoder.encode_many(request.items, request.item_ids)
    scores_N = artifact.score(artifact.encode_user(user), artifact.encode_items(items))
    return msgspec.structs.replace(request, scores=scores_N.tolist())


def _proof(path: Path) -> FileProof:
    with path.open("rb") as file:
        return FileProof(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
