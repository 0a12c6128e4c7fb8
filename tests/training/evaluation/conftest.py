"""Baselines as they are."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _short_search() -> None:
    """Search for C as training does."""
