"""`ctr events check`: scores what was answered again, from the event log, and compares."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.join import TIME_FORMATS
from app.commands.output import AsJson, console, emit, figures_table, notify, show_error

if TYPE_CHECKING:
    from app.registry.artifact.artifact import Artifact

DIFFERENT = 1
"""Exit status where a score is another than the recorded one, or could not be computed."""


def check(
    events: Annotated[Path | None, typer.Option(help="Folder of the event log.", show_default="CTR_EVENTS")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(help="Answers from then on, in UTC.", show_default="all", formats=TIME_FORMATS),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(help="Answers before then, in UTC.", show_default="now", formats=TIME_FORMATS)
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, max=1.0, help="Greatest difference that counts as none.")] = 1e-6,
    as_json: AsJson = False,
) -> None:
    """Score recorded answers again, by the versions that gave them, and compare with what they said.

    Where all are the same, a model that trains on the log sees what was served. Versions are read from
    CTR_MODEL_STORE; CTR_PRECISION has to be that of the service.

    Exit status: 0 all scores are the same; 1 some are not, or could not be computed.

    Example: ctr events check --events events --since 2026-11-29
    """
    import torch

    from app.errors import ConfigError
    from app.events.rescoring import rescore
    from app.registry.artifact.load import ArtifactLoader
    from app.registry.store.model_store import ModelStore
    from app.settings import load_settings

    settings = load_settings()
    folder = events or settings.events
    if not folder:
        raise ConfigError("which log? Give --events DIR, or set CTR_EVENTS as the service has it")
    loader = ArtifactLoader()

    def load(model: str, version: int) -> Artifact:
        store = ModelStore.from_settings(settings.model_copy(update={"model": model}))
        return loader.load(store.path(version), trust=store.trust)

    with console.status("reading the log") as status:
        found = rescore(
            Path(folder),
            load,
            since=since and since.replace(tzinfo=UTC),
            until=until and until.replace(tzinfo=UTC),
            dtype=torch.bfloat16 if settings.precision == "bf16" else torch.float32,
            tolerance=tolerance,
            report=lambda rows: status.update(f"{rows:,} items scored again"),
        )
    versions = [
        {"model": model, "version": version, "rows": rows} for (model, version), rows in found.by_version.items()
    ]
    versions += [
        {"model": model, "version": version, "problem": why} for (model, version), why in found.unavailable.items()
    ]
    if as_json:
        figures = {"rows": found.rows, "different": found.different, "largest_difference": found.largest}
        emit({**figures, "example": found.example, "without_slots": found.without_slots, "versions": versions})
    elif not versions:
        notify("no answers are recorded in that time")
    else:
        table = figures_table("scored again", "version", "items", "problem")
        for one in versions:
            table.add_row(f"{one['model']} {one['version']}", f"{one.get('rows', 0):,}", str(one.get("problem", "")))
        console.print(table)
        notify(f"the largest difference is {found.largest:.2g}; {found.without_slots:,} items have no slots in the log")
    if found.different:
        show_error(f"{found.different:,} of {found.rows:,} scores are not those recorded, as in {found.example}")
    if found.different or found.unavailable or found.without_slots:
        raise typer.Exit(DIFFERENT)
