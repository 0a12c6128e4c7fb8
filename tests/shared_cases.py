"""The files of reported cases, which lie beside the repository where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

CASES = Path(__file__).parents[2] / "shared" / "cases"


def case(name: str) -> Path:
    """Return a file of a case, or skip the test where the files are not at hand."""
    path = CASES / name
    if not path.exists():
        pytest.skip(f"needs {Path('shared') / 'cases' / name} beside the repository")
    return path
