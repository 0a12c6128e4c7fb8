"""A model class as a user writes it: the example of docs/models.md."""

from __future__ import annotations

from pathlib import Path

from tests.pages import DOCS, blocks

(BILINEAR,) = (block for block in blocks((DOCS / "models.md").read_text(), "python") if "class Bilinear" in block)


def write_module(file: str, source: str) -> None:
    """Write a module into a folder below the working directory."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
