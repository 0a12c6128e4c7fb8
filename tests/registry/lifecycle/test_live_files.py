"""Files of a live version that are damaged, removed and mended, as a look at them finds it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.registry.artifact.artifact import Artifact
from app.registry.artifact.manifest import MANIFEST, PROGRAM, TABLES
from app.registry.lifecycle import live_files
from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.lifecycle.live_files import LiveFiles
from app.registry.store.model_store import ModelStore
from tests.factories import publish_tiny
from tests.registry.lifecycle.lifecycles import flip, run, score


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"x" * 50)


def put_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.fixture
def watched(store: ModelStore) -> tuple[LiveFiles, Artifact]:
    files = LiveFiles(store, every_s=0.0)
    version = publish_tiny(store)
    files.note(version)
    return files, store.load(version)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that a look read."""
    names: list[str] = []
    read = live_files._read

    def noted(path: Path, proof: live_files.FileProof) -> str:
        names.append(path.name)
        return read(path, proof)

    monkeypatch.setattr(live_files, "_read", noted)
    return names


@pytest.mark.parametrize("damage", [remove, cut, overwrite, flip, put_a_fifo])
@pytest.mark.parametrize("name", [PROGRAM, TABLES])
def test_a_damaged_file_is_found_once_and_cleared_once_it_is_mended(
    store: ModelStore, watched: tuple[LiveFiles, Artifact], name: str, damage: Callable[[Path], None]
) -> None:
    files, artifact = watched
    folder = store.path(1)
    folder.chmod(0o755)
    good = (folder / name).read_bytes()
    with capture_logs() as logs:
        for step in (lambda: None, lambda: damage(folder / name), lambda: None):
            step()
            files.look([artifact])
        assert files.damages.keys() == {1}
        assert name in files.damages[1]
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(good)
        for _ in range(2):
            files.look([artifact])
    assert files.damages == {}
    assert [(line["event"], line["version"]) for line in logs] == [
        ("model_files_damaged", 1),
        ("model_files_mended", 1),
    ]


def test_a_manifest_or_a_folder_that_is_gone_is_found(store: ModelStore, watched: tuple[LiveFiles, Artifact]) -> None:
    files, artifact = watched
    store.path(1).chmod(0o755)
    (store.path(1) / MANIFEST).unlink()
    files.look([artifact])
    assert files.damages == {1: f"{MANIFEST} is not there"}
    shutil.rmtree(store.path(1))
    files.look([artifact])
    assert "is not there" in files.damages[1]
    files.look([])
    assert files.damages == {}, "it is live no more"


def test_only_files_that_changed_are_read_and_each_change_once(
    store: ModelStore, watched: tuple[LiveFiles, Artifact], reads: list[str]
) -> None:
    files, artifact = watched
    store.path(1).chmod(0o755)
    for _ in range(3):
        files.look([artifact])
    assert reads == [], "loading has read them"
    os.utime(store.path(1) / TABLES)
    for _ in range(3):
        files.look([artifact])
    assert (reads, files.damages) == ([TABLES], {}), "touched, and as it was"


def test_a_look_that_comes_too_early_looks_at_nothing(store: ModelStore, reads: list[str]) -> None:
    files = LiveFiles(store, every_s=3600.0)
    publish_tiny(store)
    artifact = store.load(1)
    files.look([artifact])
    shutil.rmtree(store.path(1))
    files.look([artifact])
    assert files.damages == {}
    assert sorted(reads) == sorted([PROGRAM, TABLES]), "nobody had noted them before"


def test_a_lifecycle_serves_on_and_says_so(
    store: ModelStore, lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setattr(lifecycle, "_files", LiveFiles(store, every_s=0.0))

    async def test() -> None:
        publish_tiny(store)
        await lifecycle.refresh()
        assert lifecycle.live.stable is not None
        before = score(lifecycle.live.stable)
        store.path(1).chmod(0o755)
        flip(store.path(1) / TABLES)
        assert not await lifecycle.refresh()
        status = lifecycle.status()
        assert status.damages == {1: f"{TABLES} does not have the SHA-256 the manifest says"}
        assert (status.problems, status.fallback, status.versions) == ((), False, {"stable": 1})
        assert score(lifecycle.live.stable) == before
        assert reads == [TABLES]

    run(test())
