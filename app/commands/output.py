"""What a command prints: with `--json` one document on standard output, all else on standard error."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console

console = Console(stderr=True)
"""Progress, notes and errors, for people."""


def emit(document: Any) -> None:
    """The one JSON document of a command run with `--json`."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()
