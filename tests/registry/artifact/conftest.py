"""A version that no test changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.factories import write_tiny


@pytest.fixture(scope="package")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("version")
    write_tiny(folder)
    return folder
