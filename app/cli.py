"""`ctr`: the command line. Commands live in `app.commands`, one noun a file; heavy imports wait until one runs."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import typer
from rich.markup import escape

from app.commands.output import console, warn
from app.errors import CtrError

COMMANDS: dict[str, str] = {
    "demo": "app.commands.demo:demo",
    "load": "app.commands.load:load",
    "train": "app.commands.train:train",
    "tune": "app.commands.tune:tune",
    "retrain": "app.commands.retrain:retrain",
    "publish": "app.commands.publish:publish",
    "promote": "app.commands.promote:promote",
    "rollback": "app.commands.rollback:rollback",
    "models": "app.commands.models:models",
    "schema infer": "app.commands.schema:infer",
    "serve": "app.commands.serve:serve",
    "rank": "app.commands.rank:rank",
    "synth": "app.commands.synth:synth",
    "bench rank": "app.commands.bench:rank",
}
"""Command name, with its group if it has one, to `module:function`."""

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Entry point: an error raised on purpose is one line on standard error and exit status 1."""
    try:
        if os.path.exists(".env") or any(name.upper().startswith("CTR_") for name in os.environ):
            from app.settings import unknown_settings  # takes longer than all else that `ctr --help` imports

            for line in unknown_settings():
                warn(line)
        cli()
    except CtrError as error:
        console.print(f"[red]error:[/] {escape(str(error))}", markup=True, highlight=False, soft_wrap=True)
        sys.exit(1)


for _name, _target in COMMANDS.items():
    _module, _function = _target.split(":")
    _group, _, _command = _name.rpartition(" ")
    _parent = cli
    if _group:
        _parent = typer.Typer(no_args_is_help=True, help=f"Commands of `ctr {_group}`.")
        cli.add_typer(_parent, name=_group)
    _parent.command(_command)(getattr(import_module(_module), _function))
