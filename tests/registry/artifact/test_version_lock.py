"""A version that is loaded anywhere is not pruned, and one that is being pruned is not loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import ArtifactError
from app.registry.artifact.version_lock import VersionLock, lock_if_unused


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text("{}")
    return path


def test_a_version_is_unused_once_every_lock_is_gone(manifest: Path) -> None:
    locks = [VersionLock(manifest), VersionLock(manifest)]
    while locks:
        with lock_if_unused(manifest) as unused:
            assert not unused
        locks.pop()
    with lock_if_unused(manifest) as unused:
        assert unused
        with pytest.raises(ArtifactError, match="pruned") as refused:
            VersionLock(manifest)
    assert refused.value.reason == "file"
    VersionLock(manifest)


def test_without_a_manifest_there_is_nothing_to_lock(tmp_path: Path) -> None:
    VersionLock(tmp_path / "absent")
    with lock_if_unused(tmp_path / "absent") as unused:
        assert unused


def test_a_manifest_that_cannot_be_opened_counts_as_used(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with lock_if_unused(tmp_path / "link") as unused:
        assert not unused
