"""What the documentation tells people to type exists: every `ctr` command with its options, and every `make` target."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from app.cli import COMMANDS, cli
from tests.pages import FENCED, PAGES, ROOT

CURRENT_PAGES = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""The changelog may name what was taken out since."""
WORD = re.compile(r"--[a-z][a-z-]*")


@cache
def options(name: str) -> set[str]:
    """Return the options of a command, long and short."""
    found: Any = typer.main.get_command(cli)
    for word in name.split():
        found = found.commands[word]
    return {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}


def typed(text: str) -> Iterator[str]:
    """Yield what begins with `ctr`: lines of shell blocks, continued ones joined, and code within sentences."""
    for language, body in FENCED.findall(text):
        if language in ("sh", "", "dockerfile", "yaml"):
            for line in body.replace("\\\n", " ").splitlines():
                line = re.sub(r"(^|\s)#.*", "", line)
                yield from re.findall(r"(?:^|(?<!-n)[\s;&|(])((?:\S*/)?ctr [a-z][^;&|#()]*)", line)
    yield from re.findall(r"`((?:\S*/)?ctr [a-z][^`]*)`", FENCED.sub("", text))


def named(line: str) -> str | None:
    """Return the command that a line calls, or None where there is none of its first words."""
    words = line.split()[1:]
    return next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), None)


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_command_that_is_named_has_the_options_that_are_given(page: Path) -> None:
    for line in typed(page.read_text()):
        name = named(line)
        if name is None:  # a group, or the name of a process
            assert line.split()[1].split("|")[0] in {entry.split()[0] for entry in COMMANDS}, (page.name, line)
            continue
        asked = {word for word in line.split() if WORD.fullmatch(word.partition("=")[0])}
        unknown = {word for word in asked if word.partition("=")[0] not in options(name) | {"--help"}}
        assert not unknown, (page.name, line)


def test_commands_are_found_wherever_they_are_typed() -> None:
    text = """Say `ctr models --json` or
    ```sh
    kubectl -n ctr logs x && .venv/bin/ctr train --data a \\
        --model fm   # ctr none
    ```
"""
    assert [" ".join(line.split()) for line in typed(text)] == [
        ".venv/bin/ctr train --data a --model fm",
        "ctr models --json",
    ]


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_target_of_make_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    code = [*re.findall(r"`(make [a-z][^`]*)`", FENCED.sub("", text))]
    code += [line for _, body in FENCED.findall(text) for line in re.findall(r"^make [a-z].*", body, re.MULTILINE)]
    for line in code:
        words = shlex.split(line, comments=True)[1:]
        assert {word for word in words if "=" not in word} <= targets, (page.name, line)


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_module_that_is_run_exists(page: Path) -> None:
    for module in re.findall(r"python -m ((?:benchmarks|tests|app)[\w.]*)", page.read_text()):
        found = importlib.util.find_spec(module)
        assert found is not None, (page.name, module)
        assert found.submodule_search_locations is None or importlib.util.find_spec(f"{module}.__main__"), module


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_help(name: str) -> None:
    shown = CliRunner().invoke(cli, [*name.split(), "--help"])
    assert shown.exit_code == 0, shown.output
    assert "Usage:" in shown.output
