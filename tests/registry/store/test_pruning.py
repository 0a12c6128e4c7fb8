"""Old versions go; those with a label, those to return to and those that a process has loaded stay."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.errors import ArtifactError
from app.registry.artifact.load import load
from app.registry.artifact.manifest import MANIFEST, PROGRAM
from app.registry.artifact.version_lock import VersionLock, lock_if_unused
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import POINTER, CanaryPointer
from app.registry.store.pruning import prune
from app.runtime.read_only import remove_folder
from tests.factories import publish_tiny
from tests.users import allow_changes

ROOT = Path(__file__).parents[3]


def filled(store: ModelStore, source: Path, count: int) -> ModelStore:
    for _ in range(count):
        store.publish_copy(source)
    return store


def test_the_newest_stay(store: ModelStore, source: Path) -> None:
    filled(store, source, 6).promote(6)
    assert prune(store, 4) == [1, 2]
    assert store.versions() == [3, 4, 5, 6]
    assert prune(store, 4) == []
    assert not list(store.folder.glob(".tmp-*"))
    assert store.publish_copy(source) == 7, "a number is not given again"


def test_what_has_a_label_or_was_lately_stable_stays(store: ModelStore, source: Path) -> None:
    filled(store, source, 12)
    for stable in (1, 2, 3, 4, 2, 12):
        store.promote(stable)
    store.update_pointer(canary=CanaryPointer(6, 0.1), shadow=7)
    assert prune(store, 2) == [1, 3, 5, 8, 9, 10]
    assert store.versions() == [2, 4, 6, 7, 11, 12]
    assert store.rollback_candidates(before=12) == [2, 4, 11, 7, 6]


def test_a_damaged_pointer_prunes_nothing(store: ModelStore, source: Path) -> None:
    filled(store, source, 4).promote(4)
    (store.folder / POINTER).write_bytes(b"{")
    assert prune(store, 2) == []
    assert store.versions() == [1, 2, 3, 4]


def test_what_this_process_has_loaded_stays_until_it_is_freed(store: ModelStore, source: Path) -> None:
    filled(store, source, 4).promote(4)
    loaded = load(store.path(1), version=1)
    assert prune(store, 2) == [2]
    assert loaded.version == 1
    del loaded
    gc.collect()
    assert prune(store, 2) == [1]


USER = """
import sys
from pathlib import Path
from app.registry.artifact.load import load
loaded = load(Path(sys.argv[1]), version=1)
print("loaded", flush=True)
sys.stdin.read()
"""


def test_what_another_process_has_loaded_stays_until_it_is_killed(store: ModelStore, source: Path) -> None:
    filled(store, source, 3).promote(3)
    command = [sys.executable, "-W", "ignore", "-c", USER, str(store.path(1))]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "loaded\n"
        assert prune(store, 2) == []
        os.kill(user.pid, signal.SIGKILL)
    assert prune(store, 2) == [1]


def test_what_failed_to_load_is_held_by_nobody(store: ModelStore, source: Path) -> None:
    filled(store, source, 3).promote(3)
    allow_changes(store.path(1))
    (store.path(1) / PROGRAM).write_bytes(b"x")
    with pytest.raises(ArtifactError):
        load(store.path(1))
    remove_folder(store.path(2))
    store.path(2).mkdir()
    (store.folder / "4").mkdir()
    assert prune(store, 2) == [1, 2]
    assert store.versions() == [3, 4]


def test_a_version_is_not_loaded_while_it_is_removed(store: ModelStore) -> None:
    version = publish_tiny(store)
    with lock_if_unused(store.path(version) / MANIFEST) as unused:
        assert unused
        with pytest.raises(ArtifactError, match="being removed") as refused:
            load(store.path(version))
        assert refused.value.reason == "file", "one of those that are tried again"
    load(store.path(version))


def test_a_fifo_in_the_manifests_place_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST)
    VersionLock(tmp_path / MANIFEST)
    with pytest.raises(ArtifactError, match="not a regular file"):
        load(tmp_path)
