"""Here drawings are drawn."""

from __future__ import annotations

import pytest

from app.training.report import figures
from tests.training.conftest import unrendered

RENDERED = {None, "deepfm", "lr"}
"""One with crosses and one without: of the other architectures no other kind of drawing comes, but other numbers."""


@pytest.fixture(autouse=True)
def _unrendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    model = request.node.callspec.params.get("model") if hasattr(request.node, "callspec") else None
    if model not in RENDERED:
        monkeypatch.setattr(figures, "draw", unrendered)
