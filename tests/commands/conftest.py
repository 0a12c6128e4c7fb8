"""The command line, run in this process."""

from __future__ import annotations

import pytest

from tests.command_line import Ctr, command_line


@pytest.fixture
def ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctr:
    """Runs `ctr` with these arguments; returns exit status, standard output and standard error."""
    return command_line(monkeypatch, capsys)
