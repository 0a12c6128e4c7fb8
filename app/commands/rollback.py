"""`ctr rollback`: returns to the version that was stable before."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.completion import versions
from app.commands.output import AsJson, ConsoleReporter, emit
from app.commands.store_options import LabelName, Model, Store, open_store
from app.errors import ConfigError


def rollback(
    label: Annotated[
        LabelName, typer.Option("--as", help="A canary or shadow is taken away; stable returns to the one before.")
    ] = LabelName.stable,
    to: Annotated[
        int | None,
        typer.Option(
            "--to",
            min=1,
            help="Return to this one, which was stable once; no other will do.",
            autocompletion=versions,
        ),
    ] = None,
    model: Model = None,
    model_store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Return to the version that was stable before; where that no longer loads, to the next older that does.

    Example: ctr rollback
    """
    from app.publishing.rollback import remove_label, roll_back

    _, store = open_store(model, model_store)
    stable, reporter = label is LabelName.stable, ConsoleReporter()
    if to is not None and not stable:
        raise ConfigError(f"--to names a version to make stable again; --as {label.value} only takes that label away")
    result = roll_back(store, to, reporter) if stable else remove_label(store, label.value, reporter)
    if as_json:
        emit(result)
