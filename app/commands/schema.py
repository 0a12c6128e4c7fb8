"""`ctr schema infer`: proposes a feature schema for a file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from app.commands.options import Positive, QuoteEscape
from app.commands.output import AsJson, console, emit, notify


def infer(
    file: Annotated[Path, typer.Argument(help="CSV, TSV or JSON lines, plain or .gz, or Parquet, with named columns.")],
    label: Annotated[str | None, typer.Option(help="Column of 0 or 1.", show_default="guessed")] = None,
    positive: Positive = None,
    user_id: Annotated[str | None, typer.Option(help="Column of the user's id.", show_default="guessed")] = None,
    item_id: Annotated[str | None, typer.Option(help="Column of the item's id.", show_default="guessed")] = None,
    quote_escape: QuoteEscape = None,
    rows: Annotated[int, typer.Option(min=10, help="How many rows to look at.")] = 100_000,
    out: Annotated[Path | None, typer.Option(help="Write it there; an existing file is kept.")] = None,
    as_json: AsJson = False,
) -> None:
    """Propose a features.yaml for a file: what each column is, which side it is on, and why.

    Example: ctr schema infer clicks.csv > features.yaml
    """
    from app.errors import ConfigError
    from app.features.schema import parse_schema
    from app.training.data.schema_proposal import propose_schema

    proposal = propose_schema(
        file, label=label, positive=positive, user_id=user_id, item_id=item_id, rows=rows, escape=quote_escape
    )
    if out:
        try:
            with out.open("x", encoding="utf-8") as target:
                target.write(proposal.text)
        except FileExistsError:
            raise ConfigError(
                f"{out} is there already, and is kept, as somebody may have mended it: name another --out, or delete it"
            ) from None
        except OSError as error:
            raise ConfigError(f"{out}: cannot be written: {error.strerror}") from error
    for note in proposal.notes:
        notify(note)
    options = ["--positive", positive] if positive is not None else []
    options += ["--timestamp", proposal.timestamp] if proposal.timestamp else []
    command = ["ctr", "train", "--dataset", "table", "--data", str(file), "--features", str(out or "features.yaml")]
    console.print(
        escape(f"To train: {shlex.join([*command, '--label', proposal.label, *options])}"),
        highlight=False,
        soft_wrap=True,
    )
    if as_json:
        schema = parse_schema(proposal.text).model_dump(mode="json", exclude_defaults=True)
        emit(
            {
                "schema": schema,
                "label": proposal.label,
                "timestamp": proposal.timestamp,
                "left_out": proposal.left_out,
                "yaml": proposal.text,
            }
        )
    elif not out:
        sys.stdout.write(proposal.text)
