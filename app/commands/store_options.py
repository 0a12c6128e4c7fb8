"""Options that the commands of the model store share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.completion import published_models
from app.errors import ConfigError

if TYPE_CHECKING:
    from app.registry.artifact.artifact import Artifact
    from app.registry.store.model_store import ModelStore
    from app.settings import Settings


TRAIN_COMMAND = "ctr train --dataset table --data FILE --features features.yaml --label LABEL --name NAME --publish"
"""Publishes the first version of a model NAME."""


class LabelName(StrEnum):
    """The labels of `serving.json`."""

    stable = "stable"
    canary = "canary"
    shadow = "shadow"


Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="Folder under the model store.", show_default="CTR_MODEL", autocompletion=published_models
    ),
]
Store = Annotated[Path | None, typer.Option("--model-store", help="The model store.", show_default="CTR_MODEL_STORE")]
Force = Annotated[
    bool, typer.Option("--force", help="Judge it again, and let it pass however it compares with the live version.")
]


def open_store(model: str | None, model_store: Path | None) -> tuple[Settings, ModelStore]:
    """Read the settings, with these two on top, and open the store that they name. Raises ConfigError."""
    from app.registry.store.model_store import ModelStore
    from app.settings import load_settings

    settings = load_settings(model=model, model_store=model_store)
    return settings, ModelStore.from_settings(settings)


def load_version(store: ModelStore, version: int) -> Artifact:
    """Load a version to score with offline, a refused one, too.

    Raises ConfigError if there is none of that number, and ArtifactError if it cannot be loaded.
    """
    from app.registry.artifact.load import ArtifactLoader

    if version not in store.versions():
        raise ConfigError(f"{store.name} {version} is not in {store.folder.parent}; there are {known_versions(store)}")
    return ArtifactLoader().load(store.path(version), trust=store.trust)


def no_live_version(store: ModelStore) -> str:
    """Say that no version is live, and what to do: name one of those that there are, or train the first."""
    if store.versions():
        advice = f"name one with --version (there are {known_versions(store)})"
        return f"no version of {store.name} is live in {store.folder.parent}: {advice}"
    command = TRAIN_COMMAND.replace("NAME", store.name)
    return f"there is no version of {store.name} in {store.folder.parent} yet: train one first (`{command}`)"


def known_versions(store: ModelStore) -> str:
    """Say which versions there are, the last ten of them."""
    return ", ".join(map(str, store.versions()[-10:])) or "none"
