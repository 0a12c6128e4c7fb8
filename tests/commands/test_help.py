"""Every command can be run by its name, and its help shows an example; a mistyped name is answered with the nearest."""

from __future__ import annotations

import pytest

from app.cli import COMMANDS
from tests.command_line import Ctr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_has_an_example_of_it(ctr: Ctr, name: str) -> None:
    status, output, _ = ctr(*name.split(), "--help")
    words = " ".join(output.split())
    assert status == 0
    assert f"ctr {name} [OPTIONS]" in words
    assert f"Example: ctr {name}" in words


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [(("trian",), "'train'"), (("events", "forgte"), "'forget'"), (("train", "--modle", "fm"), "--model")],
)
def test_mistyped_name_is_answered_with_the_nearest(ctr: Ctr, mistyped: tuple[str, ...], meant: str) -> None:
    status, _, error = ctr(*mistyped)
    assert status == 2
    assert meant in error
