"""Limits under which small files are treated as large ones are."""

from __future__ import annotations

import functools

import pytest

from app.training.data import catalogue
from app.training.data.encoding_limits import EncodingLimits

LARGE = EncodingLimits(in_memory_bytes=0)
"""No file is read into memory."""
SMALL_CHUNKS = EncodingLimits(
    in_memory_bytes=0, block_bytes=700, parquet_rows=30, history_rows=10, chunk_rows=37, copy_bytes=512
)
"""No file is read into memory, and each has many chunks."""


def use_limits(monkeypatch: pytest.MonkeyPatch, limits: EncodingLimits) -> None:
    """Let the command line, which has no option for them, open datasets with these limits."""
    monkeypatch.setattr(catalogue, "open_dataset", functools.partial(catalogue.open_dataset, limits=limits))
