"""`ctr publish`: puts a version that was trained elsewhere into the model store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.output import AsJson, ConsoleReporter, emit, notify
from app.commands.store_options import Force, Model, Store, open_store
from app.errors import ArtifactError


def publish(
    version_dir: Annotated[Path, typer.Argument(help="A version as `ctr train` leaves it: program, tables, manifest.")],
    live: Annotated[bool, typer.Option("--live/--no-live", help="Make it the stable version too.")] = True,
    force: Force = False,
    model: Model = None,
    model_store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Copy a version into the model store under the next number, check the copy, and make it live.

    Example: ctr publish runs/deepfm-2026-01-31
    """
    from app.publishing.publish import publish as publish_version

    if not (version_dir / "manifest.json").is_file():
        raise ArtifactError(
            "file", f"{version_dir}: holds no version (no manifest.json); name a folder that `ctr train` wrote"
        )
    settings, store = open_store(model, model_store)
    published = publish_version(store, version_dir, settings, ConsoleReporter(), live=live, forced=force)
    notify(f"{store.name} {published.version} is published{' and stable' if live else ''}: {published.version_dir}")
    if as_json:
        emit(published)
