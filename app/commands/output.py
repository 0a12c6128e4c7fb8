"""The output of a command: with `--json` one document on standard output, all else on standard error."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

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


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a command's result on standard output: a table on a terminal, in a pipe a line a row with tabs between.

    Args:
        title: above the table; a pipe has none.
        left: how many columns are words and stand to the left; the others are figures.
    """
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            sys.stdout.write("\t".join(" ".join(cell.split()) for cell in row) + "\n")
        return
    from rich.table import Table

    table = Table(title=title, title_justify="left", collapse_padding=True, pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)


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
