"""Drawings are rendered in these tests, unlike in those of the rest of training."""

from __future__ import annotations

import pytest

from app.training.report import figures
from tests.drawings import unrendered

RENDERED = {None, "deepfm", "lr"}
"""A model with crosses and one without; other architectures have the same kinds of drawings with other numbers."""


@pytest.fixture(autouse=True)
def _unrendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    model = request.node.callspec.params.get("model") if hasattr(request.node, "callspec") else None
    if model not in RENDERED:
        monkeypatch.setattr(figures, "draw", unrendered)
