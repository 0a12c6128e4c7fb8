"""`ctr` as a shell runs it, without the second that a new process takes to import."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable

import pytest

from app.cli import main

Ctr = Callable[..., tuple[int, str, str]]


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        """Say that it is one."""
        return True

    @property
    def shown(self) -> str:
        """Return what is seen there, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue())


def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctr:
    """Return what runs `ctr` with its arguments, and returns exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ctr", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run
