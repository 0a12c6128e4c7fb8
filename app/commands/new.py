"""`ctr new`: begins a folder for one's own data, with a commented features.yaml and the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from app.commands.options import Positive, QuoteEscape
from app.commands.output import AsJson, emit, notify


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to; files that are there are kept.")],
    data: Annotated[
        Path | None, typer.Option(help="A table of impressions to propose a schema for.", show_default="an example")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column of 0 or 1.", show_default="guessed")] = None,
    positive: Positive = None,
    user_id: Annotated[str | None, typer.Option(help="Column of the user's id.", show_default="guessed")] = None,
    item_id: Annotated[str | None, typer.Option(help="Column of the item's id.", show_default="guessed")] = None,
    quote_escape: QuoteEscape = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.", show_default="the folder's")] = None,
    as_json: AsJson = False,
) -> None:
    """Begin with your own data: a commented features.yaml, and five commands from a table to a ranked answer.

    The commands are printed, and stand in README.md beside it; .env says which model they mean. Nothing is overwritten.

    Example: ctr new shop --data clicks.csv
    """
    from app.errors import ConfigError
    from app.registry.store.model_store import NAME
    from app.training.new_project import example_project, model_name, proposed_project

    name = name or model_name(folder)
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: use letters, digits, '_', '-' and '.'")
    if data is None:
        given = {"--label": label, "--positive": positive, "--user-id": user_id, "--item-id": item_id}
        for option, value in given.items():
            if value is not None:
                raise ConfigError(f"{option} is of a file: name it with --data")
        project = example_project(name)
    else:
        project = proposed_project(
            name, folder, data, label=label, positive=positive, user_id=user_id, item_id=item_id, escape=quote_escape
        )
    files = project.write(folder)
    for note in project.notes:
        notify(note)
    if as_json:
        commands = [command.line for command in project.commands]
        emit({"folder": str(folder), "name": name, "files": [str(file) for file in files], "commands": commands})
        return
    notify(f"Written: {', '.join(map(str, files))}")
    notify(f"Read {files[0]}: it decides what the model sees. Then, in {folder}:")
    for command in project.commands:
        sys.stdout.write(f"{command.line}\n")
