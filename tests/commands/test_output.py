"""A result is a table on a terminal, lines with tabs in a pipe, and one JSON document with `--json`."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import typer
from rich.table import Table

from app.cli import COMMANDS, cli
from app.commands.output import figures_table, show_rows, show_table
from tests.command_line import Terminal


def table() -> Table:
    made = figures_table("a title", "what", "log\nloss")
    made.add_row("[red]deepfm[/], which is a long name that would be cut in eighty columns " + "x" * 80, "0.5")
    made.add_row("\\[lr]", "0.25")
    return made


def test_a_pipe_has_a_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(table())
    lines = capsys.readouterr().out.splitlines()
    name = "deepfm, which is a long name that would be cut in eighty columns " + "x" * 80
    assert lines == ["what\tlog loss", f"{name}\t0.5", "[lr]\t0.25"]


def test_a_terminal_has_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    show_rows("a title", ("what", "how many"), [("[lr]", "1,000")])
    assert "a title" in terminal.shown
    assert "│[lr]" in terminal.shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json(name: str) -> None:
    found: Any = typer.main.get_command(cli)
    for word in name.split():
        found = found.commands[word]
    assert "--json" in {option for parameter in found.params for option in parameter.opts}
