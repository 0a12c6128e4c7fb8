"""A version to publish copies of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.factories import write_tiny


@pytest.fixture(scope="package")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_tiny(folder)
    (folder / "report.html").write_text("<p>report</p>")
    return folder
