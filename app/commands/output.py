"""The output of a command: with `--json` one document on standard output, all else on standard error."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape, render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]

console = Console(stderr=True)
"""Progress, notes and errors, for people."""


def emit(document: Any) -> None:
    """Write the one JSON document of a command that was run with `--json`."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def notify(message: str) -> None:
    """Print a line about what is being done."""
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print a line about something that did not go as asked, though the command goes on."""
    console.print(f"[yellow]note:[/] {escape(message)}", highlight=False, soft_wrap=True)


def show_error(message: str) -> None:
    """Print why a command failed, in one line however long it is: terminals wrap it, logs and greps want it whole."""
    console.print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)


def show_table(table: Table) -> None:
    """Print a command's result on standard output: on a terminal as it is, in a pipe a line a row with tabs between.

    What is piped on has no title, no colours, and cells that are neither cut nor wrapped.
    """
    if sys.stdout.isatty():
        Console().print(table)
        return
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    for row in zip(*columns, strict=True):
        sys.stdout.write("\t".join(" ".join(render(cell).plain.split()) for cell in row) + "\n")


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print words and figures as `show_table` does, the first column to the left and the others to the right."""
    table = figures_table(title, *columns)
    for row in rows:
        table.add_row(*map(escape, row))
    show_table(table)


def figures_table(title: str, first: str, *columns: str) -> Table:
    """Make a table of figures whose headings can be read in 80 columns."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", collapse_padding=True, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


class ConsoleReporter:
    """Shows on the console what a use case tells: an `app.publishing.reporter.Reporter`."""

    def notify(self, message: str) -> None:
        """Print a line."""
        console.print(message, markup=False, soft_wrap=True)

    def busy(self, message: str) -> contextlib.AbstractContextManager[object]:
        """Show the message with a spinner while the context lasts."""
        return console.status(message)
