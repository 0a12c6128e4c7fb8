"""The table of published versions that `ctr models` and GET /models show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from app.errors import ArtifactError
from app.registry.artifact.manifest import Manifest
from app.registry.gate.gate_report import GateReport, read_report
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import Pointer


@dataclass(frozen=True)
class VersionRow:
    """One published version."""

    version: int
    labels: list[str]
    """The labels that the pointer gives it."""
    manifest: Manifest | None
    problem: str | None
    """Why the manifest cannot be read."""
    gate: GateReport | None
    """The gate's report; None if the version was not judged."""


def read_serving(store: ModelStore) -> tuple[Pointer, str | None]:
    """Read what the store says should be live: the pointer without its seal, or an empty one and what is wrong."""
    try:
        return msgspec.structs.replace(store.pointer(), seal=None), None
    except ArtifactError as error:
        return Pointer(), str(error)


def read_row(store: ModelStore, version: int, labels: Mapping[str, int]) -> VersionRow:
    """Read the manifest and the gate's report of one version.

    Args:
        labels: label to version, as the pointer has it.
    """
    manifest, problem = None, None
    try:
        manifest = store.manifest(version)
    except ArtifactError as error:
        problem = str(error)
    own_labels = [label for label, labelled in labels.items() if labelled == version]
    return VersionRow(version, own_labels, manifest, problem, read_report(store.path(version)))
