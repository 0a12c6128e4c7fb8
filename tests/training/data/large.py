"""Small files treated as large ones are."""

from __future__ import annotations

import pytest


def every_file_is_large(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    """None is read into memory, and each has many blocks."""
    monkeypatch.setattr("app.training.data.mapped_dataset.IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(
        "app.training.data.readers.line_blocks.blocks.__kwdefaults__", {"quoted": False, "size": block_bytes}
    )
