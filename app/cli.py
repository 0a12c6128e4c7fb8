"""`ctr`: the command line. Commands live in `app.commands`, one noun a file; heavy imports wait until one runs."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer

from app import __version__
from app.commands.output import INTERRUPTED, console, show_error, warn
from app.commands.unexpected_errors import in_one_line
from app.errors import CtrError
from app.runtime.garbage_collection import collect_rarely

COMMANDS: dict[str, str] = {
    "new": "app.commands.new:new",
    "demo": "app.commands.demo:demo",
    "audience": "app.commands.audience:audience",
    "load": "app.commands.load:load",
    "train": "app.commands.train:train",
    "tune": "app.commands.tune:tune",
    "retrain": "app.commands.retrain:retrain",
    "publish": "app.commands.publish:publish",
    "promote": "app.commands.promote:promote",
    "rollback": "app.commands.rollback:rollback",
    "join": "app.commands.join:join",
    "evaluate-policy": "app.commands.evaluate_policy:evaluate_policy",
    "events forget": "app.commands.events:forget",
    "events check": "app.commands.events:check",
    "events drain": "app.commands.events:drain",
    "skew": "app.commands.skew:skew",
    "key": "app.commands.key:key",
    "check": "app.commands.check:check",
    "models": "app.commands.models:models",
    "schema infer": "app.commands.schema:infer",
    "serve": "app.commands.serve:serve",
    "score": "app.commands.score:score",
    "rank": "app.commands.rank:rank",
    "size": "app.commands.size:size",
    "synth": "app.commands.synth:synth",
    "bench rank": "app.commands.bench:rank",
}
"""Command name, with its group if it has one, to `module:function`."""

GROUPS = {
    "schema": "Propose a features.yaml for a file of your own: `ctr schema infer`.",
    "events": "Look after the log of answers and feedback: `ctr events check`, `forget`, `drain`.",
    "bench": "Measure a running service: `ctr bench rank`.",
}
"""What `ctr --help` says of a group of commands."""

COMPLETING = "_CTR_COMPLETE"
"""Set by a shell that asks, at each press of Tab, how a command line may go on."""

cli = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"ctr-serving {__version__}\n")
        raise typer.Exit


@cli.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Train, publish and serve models of the click-through rate."""


def _log_to_standard_error() -> None:
    """Have what a library room logs go where it cannot be taken for a command's document; `ctr serve` sets its own."""
    import structlog

    structlog.reset_defaults()  # where a service was configured in this process before, its processors want its loggers
    # Tracebacks without local variables: those hold ids and features of users, and take seconds to be drawn.
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(
        processors=[*structlog.get_config()["processors"][:-1], renderer],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def main() -> None:
    """Entry point: an error is one line on standard error and exit status 1, whatever a user has done.

    CTR_LOG_LEVEL=debug adds the traceback of one that was not raised on purpose.
    """
    collect_rarely()
    try:
        try:
            has_settings = os.path.exists(".env") or any(name.upper().startswith("CTR_") for name in os.environ)
            if has_settings and COMPLETING not in os.environ:
                # Takes longer than all else that `ctr --help` imports.
                from app.commands.unknown_settings import unknown_settings

                for line in unknown_settings():
                    warn(line)
            cli()
        finally:
            sys.stdout.flush()  # a full disk is found out here, and not when nobody can say it any more
    except CtrError as error:
        _fail(str(error))
    except BrokenPipeError:  # whoever read it has seen enough
        _discard_output()
        sys.exit(1)
    except Exception as error:
        _discard_output()
        if os.environ.get("CTR_LOG_LEVEL", "").lower() == "debug":
            traceback.print_exc()
        _fail(in_one_line(error))


def _discard_output() -> None:
    """Let the interpreter end without another try to write what could not be written."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> NoReturn:
    show_error(message)
    sys.exit(1)


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command, so that Ctrl-C ends it with one word and the status that shells expect."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        _log_to_standard_error()
        try:
            command(**options)
        except KeyboardInterrupt:
            console.print("interrupted", highlight=False)
            raise typer.Exit(INTERRUPTED) from None

    return run


def _in_paragraphs(docstring: str) -> str:
    """Join the lines of each paragraph: Typer does so with the first alone, and wraps the others within their lines."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


_parents = {"": cli}
for _name, _target in COMMANDS.items():
    _module, _function = _target.split(":")
    _group, _, _command = _name.rpartition(" ")
    if _group not in _parents:  # of two groups with one name the second alone would be found
        _parents[_group] = typer.Typer(no_args_is_help=True, help=GROUPS[_group])
        cli.add_typer(_parents[_group], name=_group)
    _run = getattr(import_module(_module), _function)
    _parents[_group].command(_command, help=_in_paragraphs(_run.__doc__))(_interruptible(_run))
