"""Publishers in processes of their own, for tests of the store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from app.registry.store.model_store import ModelStore

ROOT = Path(__file__).parents[3]


def leftovers(store: ModelStore) -> list[str]:
    """Return the names of the folders that publishers have left."""
    return [entry.name for entry in store.folder.glob(".tmp-*")]


def python(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program in this checkout."""
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
