"""Whatever is done to a version's files, it is refused with a reason."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import ArtifactError
from app.registry.artifact.load import load
from app.registry.artifact.manifest import (
    MANIFEST,
)
from tests.factories import fitted, write_tiny
from tests.registry.artifact.damages import DAMAGES, FILES, rewrite_manifest


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "version"))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("seed", range(3))
def test_every_flipped_bit_is_refused(folder: Path, file: str, seed: int) -> None:
    dice = random.Random(seed)
    good = (folder / file).read_bytes()
    for _ in range(50):
        raw, offset = bytearray(good), dice.randrange(len(good))
        raw[offset] ^= 1 << dice.randrange(8)
        (folder / file).write_bytes(raw)
        with pytest.raises(ArtifactError) as refused:
            load(folder)
        assert refused.value.reason in {"hash", "manifest", "format"}
    (folder / file).write_bytes(good)
    load(folder)


@pytest.mark.parametrize("file", FILES)
def test_every_truncation_is_refused(folder: Path, file: str) -> None:
    good = (folder / file).read_bytes()
    for size in {0, 1, 7, 8, 9, len(good) // 2, len(good) - 1}:
        (folder / file).write_bytes(good[:size])
        with pytest.raises(ArtifactError) as refused:
            load(folder)
        assert refused.value.reason in {"hash", "manifest", "file"}
    (folder / file).write_bytes(good + b"\0")
    with pytest.raises(ArtifactError):
        load(folder)


@pytest.mark.parametrize(("reason", "damage"), DAMAGES, ids=[f"{r}-{n}" for n, (r, _) in enumerate(DAMAGES)])
def test_damage_is_refused_with_its_reason(folder: Path, reason: str, damage: Callable[[Path], None]) -> None:
    damage(folder)
    with pytest.raises(ArtifactError) as refused:
        load(folder)
    assert refused.value.reason == reason, str(refused.value)
    assert 10 < len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


def test_a_manifest_of_another_version_is_refused(folder: Path) -> None:
    rewrite_manifest(folder, version=6)
    assert load(folder, version=6).version == 6
    with pytest.raises(ArtifactError, match="of version 6, not 7") as refused:
        load(folder, version=7)
    assert refused.value.reason == "manifest"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
@pytest.mark.parametrize("file", FILES)
def test_a_file_without_permission_is_refused(folder: Path, file: str) -> None:
    (folder / file).chmod(0)
    with pytest.raises(ArtifactError, match="Permission denied"):
        load(folder)


def test_a_vocabulary_of_one_machine_serves_another(tmp_path: Path) -> None:
    """Nothing of the writer's folder is kept: a version can be moved."""
    (tmp_path / "a").mkdir()
    write_tiny(tmp_path / "a")
    moved = (tmp_path / "a").rename(tmp_path / "b")
    assert str(tmp_path).encode() not in (moved / MANIFEST).read_bytes()
    assert load(moved).schema == fitted().schema
